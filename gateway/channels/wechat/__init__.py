"""Personal WeChat accounts. `channel.py` joins policy and transport; `people.py`, `mention.py`, `parse.py` and `compose.py` are pure.

A transport is one way into a personal account (`transport.py` promises). `itchat_door.py` is the only file that knows the itchat
package and `requests`; it blocks, so `itchat_transport.py` calls it in threads and keeps every decision on the event loop.
"""
