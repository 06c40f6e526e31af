"""Which task of a project has the recording that a table means, by the task's audio address."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from clapboard.errors import EventTableError
from clapboard.event_tables.event_row import shown
from clapboard.event_tables.recordings import RecordingNames, base_name
from clapboard.label_studio.records import Task

_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")
_ENDING = re.compile(r"\.[A-Za-z0-9]{1,5}$")
_LONGEST_UPLOADED = 70  # characters
_MAX_ADDRESS = 10_000  # characters; longer ones are data: URIs, which have no name


class TaskIndex:
    """The tasks of a project by the names of their recordings."""

    def __init__(self, tasks: Iterable[Task], audio_key: str) -> None:
        self._tasks: dict[str, list[int]] = defaultdict(list)
        for task in tasks:
            uri = task.data.get(audio_key)
            if isinstance(uri, str) and len(uri) <= _MAX_ADDRESS and uri[:5].lower() != "data:":
                for name in _names(uri):
                    self._tasks[name].append(task.id)
        self._names = RecordingNames(self._tasks)

    def find(self, recording: str) -> int | None:
        """The task with the recording of this name or path; None if there is none.

        Raises `EventTableError` if there are several.
        """
        name = self._names.find(recording) or self._names.find(upload_name(base_name(recording)))
        tasks = self._tasks[name] if name else []
        if len(tasks) > 1:
            raise EventTableError(
                f"“{shown(recording)}” is the recording of {len(tasks)} tasks, such as {tasks[0]} and {tasks[1]}: "
                "delete all but one."
            )
        return tasks[0] if tasks else None


def original_name(uri: str) -> str:
    """The file name of a recording, without what Label Studio puts before the name of an uploaded file."""
    name = base_name(uri)
    uploaded = _UPLOADED.fullmatch(name) if "/data/upload/" in uri else None
    return uploaded[1] if uploaded else name


def _names(uri: str) -> Iterator[str]:
    yield uri
    name, original = base_name(uri), original_name(uri)
    if original != name:
        yield uri.removesuffix(name) + original


def upload_name(file_name: str) -> str:
    """The name to upload a file under, which Label Studio leaves as it is.

    It takes other signs out, as Django's `get_valid_filename` does, and cuts names whose path is above 100 characters,
    with a random end.
    """
    valid = re.sub(r"[^-\w.]", "", file_name.strip().replace(" ", "_"))
    if len(valid) <= _LONGEST_UPLOADED:
        return valid
    digest = hashlib.sha256(valid.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    ending = _ENDING.search(valid)
    return f"{valid[:50]}-{digest}{ending[0] if ending else ''}"
