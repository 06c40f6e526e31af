"""Every error that Clapboard raises on purpose.

    ClapboardError
    ├── SettingsError             a setting is unknown, invalid or missing
    ├── LabelConfigError          the project's label config can't be used
    ├── SourceError               a task's audio can't be fetched
    │   ├── SourceRefused         … because its address is not allowed
    │   ├── SourceTooLarge        … because it is over the size cap
    │   └── SourceUnavailable     … for now: time-out, 5xx, connection lost (retryable)
    │       └── SourceUnreachable … because no connection can be made
    ├── AudioError                the file was fetched, but isn't usable audio
    │   └── AudioTooLong          … because it is longer than recordings may be
    ├── TimedOut                  a job took too long
    ├── EventTableError           a table of sound events can't be read or written
    ├── ModelError                a checkpoint can't be found or read
    ├── TrainingError             there is nothing to train on, or training can't go on
    ├── NoWorkerError             no worker has loaded a model yet (retryable)
    ├── BusyError                 the workers haven't answered in time (retryable)
    ├── ProjectBusy               another job is changing the project (retryable)
    ├── LabelStudioError          Label Studio refused a request
    │   ├── LabelStudioLacks        … because it has no such thing
    │   ├── BackendUnreached        … because the backend didn't answer it in time (retryable)
    │   └── LabelStudioUnreachable  … or didn't answer (retryable)
    ├── RequestError              a request to the backend is invalid
    │   ├── Unauthorized          … or comes without the password
    │   ├── ForeignCaller         … or comes from another web page, or for another host
    │   ├── NotJson               … or its body isn't sent as JSON
    │   ├── BodyTooLarge          … or its body is over the limit
    │   └── BodyTooSlow           … or its body takes too long to arrive
    ├── InternalError             an unexpected error; another attempt may succeed (retryable)
    └── NotFoundError             a project, job or version that doesn't exist
        └── NoDataSetError        … or a public data set that isn't on disk

Each class says whether the same call may succeed later (`retryable`), its HTTP status, and a command's exit code. The
message is one sentence for people: what is wrong with which subject, and what to do. It never contains a token or a
URL's query, which may be a signature.
"""

from __future__ import annotations


class ClapboardError(Exception):
    """Base of all errors that Clapboard raises on purpose; `str(error)` is one sentence that anybody may see."""

    retryable = False
    http_status = 500
    exit_code = 2  # of a command; 3: something needed isn't there

    @property
    def code(self) -> str:
        """The class's name in snake case without «Error»: the stable name in the store and in metrics."""
        name = type(self).__name__.removesuffix("Error")
        return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


def error_of(code: str, sentence: str) -> ClapboardError:
    """The error with this `code`, as another process reported it; an `InternalError` if the code is unknown."""
    kinds: list[type[ClapboardError]] = [ClapboardError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return next((error for kind in kinds if (error := kind(sentence)).code == code), InternalError(sentence))


class SettingsError(ClapboardError):
    """A setting is unknown, invalid or missing."""


class LabelConfigError(ClapboardError):
    """The project's label config can't be used."""

    http_status = 422


class SourceError(ClapboardError):
    """A task's audio can't be fetched."""

    http_status = 422


class SourceRefused(SourceError):
    """The operator hasn't allowed the audio's address."""


class SourceTooLarge(SourceError):
    """The audio is over the size cap."""


class SourceUnavailable(SourceError):
    """The audio can't be fetched for now."""

    retryable = True
    http_status = 503
    exit_code = 3


class SourceUnreachable(SourceUnavailable):
    """No connection can be made to the audio's server."""


class AudioError(ClapboardError):
    """The file isn't usable audio."""

    http_status = 422


class AudioTooLong(AudioError):
    """The recording is longer than recordings may be."""


class TimedOut(ClapboardError):
    """A job took longer than jobs may take."""

    http_status = 504


class EventTableError(ClapboardError):
    """A table of sound events can't be read or written."""

    http_status = 422


class ModelError(ClapboardError):
    """A checkpoint can't be found or read."""

    exit_code = 3


class TrainingError(ClapboardError):
    """There is nothing to train on, or training can't go on."""

    http_status = 409


class NoWorkerError(ClapboardError):
    """No worker has loaded the model yet."""

    retryable = True
    http_status = 503
    exit_code = 3


class BusyError(ClapboardError):
    """The workers haven't answered in time."""

    retryable = True
    http_status = 503
    exit_code = 3


class ProjectBusy(ClapboardError):
    """Another job is changing the project at the moment."""

    retryable = True
    http_status = 503
    exit_code = 3


class LabelStudioError(ClapboardError):
    """Label Studio refused a request."""

    http_status = 502
    exit_code = 3


class LabelStudioLacks(LabelStudioError):
    """Label Studio doesn't have what it was asked for, or doesn't show it to this token."""

    code = "label_studio"  # its code before it was a class of its own


class BackendUnreached(LabelStudioError):
    """Label Studio got no answer from the backend within its time-out of one to three seconds."""

    retryable = True


class LabelStudioUnreachable(LabelStudioError):
    """Label Studio didn't answer."""

    retryable = True


class StoreError(ClapboardError):
    """The database can't be used now."""

    retryable = True
    http_status = 503
    exit_code = 3


class StoreDamaged(StoreError):
    """The database is damaged."""

    retryable = False


class RequestError(ClapboardError):
    """A request to the backend is invalid."""

    http_status = 422


class Unauthorized(RequestError):
    """The request has no password, or a wrong one."""

    http_status = 401


class ForeignCaller(RequestError):
    """The request is for a host name that isn't the backend's, or comes from another origin's web page."""

    http_status = 403


class NotJson(RequestError):
    """The request's body isn't sent as JSON."""

    http_status = 415


class BodyTooLarge(RequestError):
    """The request's body is over the limit."""

    http_status = 413


class BodyTooSlow(RequestError):
    """The request's body takes too long to arrive."""

    http_status = 408


class InternalError(ClapboardError):
    """An unexpected error occurred."""

    retryable = True


class NotFoundError(ClapboardError):
    """The requested object doesn't exist."""

    http_status = 404


class NoDataSetError(NotFoundError):
    """A public data set isn't on disk."""

    exit_code = 3
