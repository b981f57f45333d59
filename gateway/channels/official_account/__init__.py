"""WeChat official accounts (公众号/服务号) answered passively: the reply travels in the response to the platform's own request.

`envelope.py`, `parse.py` and `compose.py` are pure; `deadline.py` knows time and attempts but no HTTP; `request.py` knows HTTP but no
WeChat; `channel.py` joins them. Platform facts: WeChat's 公众号 developer documentation as of 2026-11.
"""
