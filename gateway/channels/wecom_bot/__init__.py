"""WeCom (企业微信) intelligent bots over their long connection. `parse`, `compose`, `pace`, `budget` and `verdicts` are pure; only `line`
knows websockets."""
