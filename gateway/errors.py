"""Everything that can go wrong, by what the caller can do about it.

GatewayError
├── ConfigError                 the configuration is wrong: names the key and the repair; exit code 2
├── StartupError                a part cannot start: names the part and the repair; exit code 1
├── Refused                     flow: this message is not answered, and the person is told why
│   ├── Busy                    a queue is full
│   └── TooLong                 the message is longer than intake allows
├── BackendError                nothing, or not all, came back from what answers
│   ├── BackendUnreachable      no connection, or it broke
│   ├── BackendTimeout          it took longer than its deadline, or stalled
│   ├── BackendMisconfigured    wrong key, unknown model, bad request: trying again is useless
│   ├── RateLimited             too many requests or no quota left; carries `retry_after_s`
│   ├── BackendOverloaded       the server says it cannot now (5xx)
│   ├── BrokenAnswer            what came is not an answer: HTML, broken JSON, an error inside the stream
│   ├── TruncatedAnswer         the stream ended before the answer did
│   ├── EmptyAnswer             the answer has no words
│   ├── ContentFiltered         the provider refuses the content
│   └── ContextTooLong          question and history do not fit the model
├── SendError                   a platform did not take what we wanted to show
│   ├── TicketExpired           the permission to answer is over; the answer may be parked
│   ├── SendRefused             the platform refuses for good
│   ├── SendLater               surely not shown; may be tried again after `retry_after_s`
│   └── SendUncertain           nobody can know whether it was shown
├── ChannelError                a channel cannot live: needs a sign-in, wrong credentials
└── StoreError                  the store cannot read or write
    ├── StoreUnavailable        nothing was written; do not acknowledge
    ├── StoreTooNew             the data file was written by a newer gateway
    └── LeaseLost               another process has taken this conversation over; say and write nothing more about it

`str(error)` is for the operator. `error.for_user` names the sentence in `wording.py` for the person in the chat.
"""

from __future__ import annotations


class GatewayError(Exception):
    """Something in the gateway went wrong."""

    for_user = "failed"
    """Name of the sentence in `gateway.wording` that the person in the chat gets."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)


class ConfigError(GatewayError):
    """The configuration is wrong."""


class StartupError(GatewayError):
    """A part of the gateway cannot start."""


class Refused(GatewayError):
    """The message is not answered by rule."""

    for_user = "refused"


class Busy(Refused):
    """Too many messages are waiting."""

    for_user = "busy"


class TooLong(Refused):
    """The message is longer than this gateway accepts."""

    for_user = "too_long"


class BackendError(GatewayError):
    """The backend gave no answer."""

    for_user = "backend_failed"
    retryable = True
    """Whether the same question may succeed at the same backend a moment later."""


class BackendUnreachable(BackendError):
    """The backend cannot be reached."""

    for_user = "backend_unreachable"


class BackendTimeout(BackendError):
    """The backend took too long."""

    for_user = "backend_timeout"
    retryable = False


class BackendMisconfigured(BackendError):
    """The backend refuses the request as it is configured: check key, model name and base_url."""

    for_user = "backend_misconfigured"
    retryable = False


class RateLimited(BackendError):
    """The backend takes no more requests for now."""

    for_user = "rate_limited"

    def __init__(self, message: str | None = None, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """Seconds the server asks to wait; None when it did not say."""


class BackendOverloaded(BackendError):
    """The backend says that it cannot answer now."""

    for_user = "backend_overloaded"


class BrokenAnswer(BackendError):
    """What the backend sent is not an answer."""

    for_user = "broken_answer"


class TruncatedAnswer(BackendError):
    """The answer broke off."""

    for_user = "truncated_answer"


class EmptyAnswer(BackendError):
    """The answer has no words."""

    for_user = "empty_answer"
    retryable = False


class ContentFiltered(BackendError):
    """The provider's filter refuses the content."""

    for_user = "content_filtered"
    retryable = False


class ContextTooLong(BackendError):
    """Question and history do not fit the model's window."""

    for_user = "context_too_long"
    retryable = False


class SendError(GatewayError):
    """The platform did not take the answer."""


class TicketExpired(SendError):
    """The platform's permission to answer is over."""


class SendRefused(SendError):
    """The platform refuses this answer for good."""


class SendLater(SendError):
    """The platform did not take the answer now; it was surely not shown."""

    def __init__(self, message: str | None = None, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SendUncertain(SendError):
    """The connection broke while sending: the answer may or may not have been shown."""


class ChannelError(GatewayError):
    """A channel cannot work until somebody repairs it."""


class StoreError(GatewayError):
    """The store failed."""

    for_user = "store_failed"


class StoreUnavailable(StoreError):
    """The store cannot be written: disk full, file gone or server away."""


class StoreTooNew(StoreError):
    """The data file was written by a newer gateway; start that version or restore a backup."""


class LeaseLost(StoreError):
    """Another process has taken this conversation over."""
