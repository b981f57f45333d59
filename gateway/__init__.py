"""A chat gateway for WeChat and DingTalk: hear, admit, line up, answer, show, close the book.

Floors, from the ground up; a file imports only from lower floors and from its own room:
0 words (messages, prompts, errors, clock, wording) · 1 memory (sessions) · 2 promises (channels/base, backends/base,
stores/base) · 3 rooms (channels, backends, stores, rendering, commands, lanes, parked) · 4 path (intake, dispatch, answering,
delivery, expiry) · 5 house (config, wiring, app) · 6 door (cli).
"""

__version__ = "0.1.0"
