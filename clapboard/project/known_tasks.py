"""A project's tasks as the store keeps them: where the audio is, which recording it is from, whether it is held out."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from clapboard.audio.channels import content_key
from clapboard.errors import LabelConfigError, NotFoundError, SourceError
from clapboard.labels.label_config import parse_label_config
from clapboard.labels.label_space import LabelSpace
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.tasks import KnownTask
from clapboard.suggest.scoring import Array
from clapboard.untrusted import identifier, storable_text

_SAMPLE_SIZE = 100
_MAX_NAME_CHARS = 1_000


class TaskReader:
    """Turns one project's Label Studio tasks into the form that the store keeps."""

    def __init__(self, settings: Settings, sources: AudioSources, project: int, test_share: float) -> None:
        self._sources = sources
        self._recording_key = settings.recording_key
        self._project = project
        self._test_share = test_share

    def read(self, label_space: LabelSpace, task: int, data: Mapping[str, Any]) -> KnownTask:
        """The task to store. Raises `SourceError` if its data names no audio that can be fetched."""
        uri = label_space.audio_uri(data)
        address = self._sources.key(uri)
        source = _recording_name(data.get(self._recording_key)) or address
        key = content_key(address, label_space.channel)
        return KnownTask(task, uri, key, source, self._is_held_out(source))

    def _is_held_out(self, source: str) -> bool:
        """A fair draw by a hash of the recording's name, so that the answer is the same in every process."""
        if not self._test_share:
            return False
        drawn = hashlib.sha256(f"{self._project}:{source}".encode()).digest()[:8]
        return int.from_bytes(drawn, "big") < self._test_share * 2**64


def remember_tasks(
    settings: Settings, store: Store, sources: AudioSources, project: int, body: Mapping[str, Any]
) -> None:
    """Store the tasks inside an event of a connected project, so that their labels can be learnt from."""
    try:
        record = store.catalog.project(project)
        if not record.connected:
            return
        label_space = parse_label_config(record.label_config)
    except (NotFoundError, LabelConfigError):
        return
    reader = TaskReader(settings, sources, project, record.test_share)
    event_tasks = body.get("task")
    readable = []
    for item in event_tasks if isinstance(event_tasks, list) else [event_tasks]:
        if not isinstance(item, Mapping) or not isinstance(item.get("data"), Mapping):
            continue
        if (task := identifier(item.get("id"))) is not None:
            with contextlib.suppress(SourceError):
                readable.append(reader.read(label_space, task, item["data"]))
    store.tasks.put(project, readable)


def _recording_name(value: Any) -> str:
    """The recording's name from a task's data; empty if it isn't one. A very long name is replaced by its hash."""
    if not isinstance(value, str):
        return str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else ""
    name = storable_text(value)
    if len(name) > _MAX_NAME_CHARS:
        return hashlib.sha256(name.encode()).hexdigest()
    return name if name.strip() else ""


def rekey_tasks(store: Store, sources: AudioSources, project: int, channel: str) -> None:
    """Store the tasks' audio under the channel that the label config names now."""
    for page in store.tasks.of_project(project):
        if not channel and all(task.uri_key == sources.key(task.uri) for task in page[:_SAMPLE_SIZE]):
            return  # the common case: no channel is named now, and none was before
        keys = {task.task: content_key(sources.key(task.uri), channel) for task in page}
        store.tasks.put(project, [replace(task, uri_key=keys[task.task]) for task in page])


def embedded(store: Store, tasks: Sequence[KnownTask], encoder: Encoder, *, frames: bool = False) -> dict[int, Array]:
    """By task, the embeddings `[W, D]` of its windows; without the tasks whose audio the encoder hasn't embedded.

    With `frames`, also without those whose frames aren't stored.
    """
    recordings = store.embeddings.recordings([task.uri_key for task in tasks])
    vectors = store.embeddings.get(list(recordings.values()), encoder.version, encoder.dtype)
    framed = store.frames.stored(list(recordings.values()), encoder.version, encoder.dtype) if frames else vectors
    embeddings = {}
    for task in tasks:
        recording = recordings.get(task.uri_key)
        if recording is not None and recording.sha256 in vectors and recording.sha256 in framed:
            embeddings[task.task] = vectors[recording.sha256]
    return embeddings
