"""Platforms on a loopback port, with fault knobs. A simulator counts only after a foreign client has passed against it.

May look at floors 0 to 3; nothing in the house but the door looks at them.
"""
