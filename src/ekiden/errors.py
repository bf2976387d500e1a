"""Every error Ekiden raises. The docstring of a class is its default message.

EkidenError
├── SettingsError            a setting does not parse               (exit 2)
│   └── NotSetUp             what a provider needs is not set here; elsewhere it may be
├── FlowError                a flow is wrongly defined, or unknown
│   └── UnknownFlow
├── DatabaseError
│   ├── DatabaseUnreachable
│   ├── EmbeddedServerError
│   └── MigrationError
├── NotFound                 session, task, draft                   (404)
├── InputInvalid             input that does not fit its schema     (422)
├── Conflict                 the state does not allow it now        (409)
│   ├── NoGate
│   └── StaleRevision                                               (412)
└── StepError                what ends an attempt; says whether a retry can help
    ├── CannotHeal           raised by a flow author: do not retry
    ├── StepTimeout
    ├── Interrupted          the attempt lost its task in the middle of the step, or that is over
    ├── BudgetReached        the next call would exceed a budget: a person decides
    ├── NotNow               a provider is not to be asked yet; nothing was sent
    │   ├── StillAnswering   it was asked, and works on the answer; nobody else is to be asked
    │   └── ModelElsewhere   the model that people chose can be asked by other workers only
    │       └── ModelNowhere no living worker can ask it: somebody must start one
    ├── ResultInvalid        a step returned something its annotation does not allow
    ├── ModelError
    │   ├── ModelUnavailable refused connection, 5xx, cut stream
    │   ├── ModelBusy        429; carries Retry-After
    │   ├── ModelRefused     4xx that no retry heals (key, quota, bad request)
    │   └── AnswerInvalid    an answer came, but not in the asked-for form
    └── SearchError
"""

from __future__ import annotations

import inspect
from typing import Any


class EkidenError(Exception):
    """Something went wrong in Ekiden."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.getdoc(type(self)) or type(self).__name__)

    @property
    def message(self) -> str:
        """What happened, as a sentence for people."""
        return str(self.args[0])


class SettingsError(EkidenError):
    """A setting could not be read."""


class NotSetUp(SettingsError):
    """What a provider needs is not set on this machine."""


class FlowError(EkidenError):
    """The flow is not defined correctly."""


class UnknownFlow(FlowError):
    """No living worker has registered this flow."""


class DatabaseError(EkidenError):
    """The database did not do what was asked."""


class DatabaseUnreachable(DatabaseError):
    """The database cannot be reached."""


class EmbeddedServerError(DatabaseError):
    """The embedded PostgreSQL could not be started."""


class MigrationError(DatabaseError):
    """The database schema does not fit this version of Ekiden."""


class NotFound(EkidenError):
    """There is no such thing."""


class InputInvalid(EkidenError):
    """The input does not fit the flow's input schema.

    Attributes:
        problems: one ``(field, message)`` pair a problem; field is a dotted path.
    """

    def __init__(
        self, message: str | None = None, problems: list[tuple[str, str]] | None = None
    ) -> None:
        super().__init__(message)
        self.problems = problems or []


class Conflict(EkidenError):
    """The session's state does not allow this now.

    Attributes:
        kind: the rule or the state, for who tells it in another language.
        named: what the message names.
    """

    kind = "conflict"

    def __init__(self, message: str | None = None, *, kind: str = "", **named: Any) -> None:
        super().__init__(message)
        self.kind = kind or self.kind
        self.named = named


class NoGate(Conflict):
    """The session is not waiting at a gate."""

    kind = "no-gate"


class StaleRevision(Conflict):
    """The output changed since you looked at it."""

    kind = "stale-revision"


class StepError(EkidenError):
    """The step failed.

    Attributes:
        retryable: whether the same attempt may succeed later.
        retry_after: seconds the other side asked us to wait, if it did.
        counts: whether the attempt counts against MAX_RETRIES. One that does not is given back,
            due after ``retry_after``.
    """

    retryable: bool = True
    counts: bool = True

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CannotHeal(StepError):
    """The step cannot succeed, however often it is tried."""

    retryable = False


class StepTimeout(StepError):
    """The step took longer than WORKER_TIMEOUT."""


class Interrupted(StepError):
    """The attempt lost its task in the middle of the step, or its step is over."""


class BudgetReached(StepError):
    """The next call would exceed a budget.

    Attributes:
        stop: which budget, and what is used of it, as the session shows it.
    """

    def __init__(self, message: str | None = None, *, stop: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.stop = stop or {}


class NotNow(StepError):
    """A provider is not to be asked yet: nothing was sent, the task waits until it may be."""

    counts = False


class StillAnswering(NotNow):
    """A provider still works on the answer: the task waits, and then fetches it."""


class ModelElsewhere(NotNow):
    """The model that was chosen is not set up on this worker: the task is for one that has it."""


class ModelNowhere(ModelElsewhere):
    """The model that was chosen is set up on no living worker: one that has it is waited for."""


class ResultInvalid(StepError):
    """The step returned something that its annotation does not allow."""

    retryable = False


class ModelError(StepError):
    """The model did not answer.

    Attributes:
        http_status: of an answer that broke off, which may be paid all the same; 0 when not even
            its head came. None: the request was refused, or never left.
        kept: the answer was cut, but its provider keeps it: the next attempt fetches it.
    """

    kept: bool = False

    def __init__(
        self,
        message: str | None = None,
        *,
        retry_after: float | None = None,
        http_status: int | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.http_status = http_status


class ModelUnavailable(ModelError):
    """The model cannot be reached."""


class ModelBusy(ModelError):
    """The model asked us to come back later."""


class ModelRefused(ModelError):
    """The model refuses this request."""

    retryable = False


class AnswerInvalid(ModelError):
    """The model's answer does not have the form that was asked for.

    Attributes:
        said: the text of the answer, when there was one: then a repair turn makes sense.
        complaint: what is wrong with it, as the model is told.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        said: str | None = None,
        complaint: str = "",
        retry_after: float | None = None,
        http_status: int | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after, http_status=http_status)
        self.said = said
        self.complaint = complaint or self.message


class SearchError(StepError):
    """The search failed."""
