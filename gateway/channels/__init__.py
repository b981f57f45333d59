"""Adapters to platforms, one folder each with the same inner plan: `channel.py` joins, `parse.py` (raw → Inbound) and
`compose.py` (Outbound → raw) are pure. A channel knows no model and no session. Foreign libraries are imported when used."""
