"""Every error that Clapboard raises on purpose.

    ClapboardError
    ├── SettingsError             a setting is unknown, malformed or missing
    ├── LabelConfigError          the project's label config can't be used
    ├── SourceError               a task's audio can't be fetched
    │   ├── SourceRefused         … because its address is not allowed
    │   ├── SourceTooLarge        … because it is over the size cap
    │   └── SourceUnavailable     … for now: time-out, 5xx, connection lost (retryable)
    ├── AudioError                the bytes were fetched, but are no audio that can be used
    ├── ModelError                a checkpoint can't be found or read
    ├── TrainingError             there is nothing to train on, or training can't go on
    ├── NoWorkerError             no worker has loaded a model yet (retryable)
    ├── BusyError                 the workers haven't answered in time (retryable)
    ├── LabelStudioError          Label Studio refused a request
    │   └── LabelStudioUnreachable  … or didn't answer (retryable)
    ├── RequestError              a request to the backend is malformed
    ├── InternalError             something unforeseen; another try may go well (retryable)
    └── NotFoundError             a project, job or version that doesn't exist
        └── NoDataSetError        … or a public data set that isn't on disk

Each class says whether the same call may succeed later (`retryable`), which HTTP status it becomes and with what code
a command exits. The message is one sentence for a person: what is wrong with which subject, and what to do. It never
holds a token, nor the query of a URL, which may be a signature.
"""

from __future__ import annotations


class ClapboardError(Exception):
    """Base of all errors raised on purpose; `str(error)` is one sentence that may be shown to anybody."""

    retryable = False
    http_status = 500
    exit_code = 2  # of a command; 3: something needed isn't there

    @property
    def code(self) -> str:
        """The class's name in snake case without «Error»: the stable name that is stored and counted."""
        name = type(self).__name__.removesuffix("Error")
        return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


class SettingsError(ClapboardError):
    """A setting is unknown, malformed or missing."""


class LabelConfigError(ClapboardError):
    """The project's label config can't be used."""

    http_status = 422


class SourceError(ClapboardError):
    """A task's audio can't be fetched."""

    http_status = 422


class SourceRefused(SourceError):
    """The audio's address is one that the operator has not allowed."""


class SourceTooLarge(SourceError):
    """The audio is over the size cap."""


class SourceUnavailable(SourceError):
    """The audio can't be fetched for now."""

    retryable = True
    http_status = 503
    exit_code = 3


class AudioError(ClapboardError):
    """The bytes are no audio that can be used."""

    http_status = 422


class ModelError(ClapboardError):
    """A checkpoint can't be found or read."""

    exit_code = 3


class TrainingError(ClapboardError):
    """There is nothing to train on, or training can't go on."""


class NoWorkerError(ClapboardError):
    """No worker has loaded the model yet."""

    retryable = True
    http_status = 503
    exit_code = 3


class BusyError(ClapboardError):
    """The workers haven't answered in time."""

    retryable = True
    http_status = 503


class LabelStudioError(ClapboardError):
    """Label Studio refused a request."""

    http_status = 502
    exit_code = 3


class LabelStudioUnreachable(LabelStudioError):
    """Label Studio didn't answer."""

    retryable = True


class RequestError(ClapboardError):
    """A request to the backend is malformed."""

    http_status = 422


class InternalError(ClapboardError):
    """Something unforeseen failed."""

    retryable = True


class NotFoundError(ClapboardError):
    """What was asked for doesn't exist."""

    http_status = 404


class NoDataSetError(NotFoundError):
    """A public data set isn't on disk."""

    exit_code = 3
