"""DingTalk bots in Stream mode. `parse` and `compose` are pure; only `stream` knows websockets, only `openapi` knows HTTP."""
