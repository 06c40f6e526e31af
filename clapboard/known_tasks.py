"""A project's tasks as Clapboard keeps them: where the audio lies, which recording it is from, what is set aside."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from clapboard.errors import LabelConfigError, NotFoundError, SourceError
from clapboard.labels import LabelSpace, parse_label_config
from clapboard.scoring import Array
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.tasks import KnownTask


class TaskReader:
    """Reads Label Studio's tasks for one project."""

    def __init__(self, settings: Settings, sources: AudioSources, project: int, test_share: float) -> None:
        self._sources = sources
        self._recording_key = settings.recording_key
        self._project = project
        self._test_share = test_share

    def read(self, label_space: LabelSpace, task: int, data: Mapping[str, Any]) -> KnownTask:
        """The task. Raises `SourceError` if its data names no audio that can be fetched."""
        uri = label_space.audio_uri(data)
        key = self._sources.key(uri)
        named = data.get(self._recording_key)
        source = str(named) if isinstance(named, str | int) and str(named).strip() else key
        return KnownTask(task, uri, key, source, self._is_set_aside(source))

    def _is_set_aside(self, source: str) -> bool:
        """By a hash of the recording: the same answer whenever and wherever it is asked, and a fair draw."""
        if not self._test_share:
            return False
        drawn = hashlib.sha256(f"{self._project}:{source}".encode()).digest()[:8]
        return int.from_bytes(drawn, "big") < self._test_share * 2**64


def remember_tasks(
    settings: Settings, store: Store, sources: AudioSources, project: int, body: Mapping[str, Any]
) -> None:
    """Keep the tasks that an event of a connected project came with, so that their labels can be learnt from."""
    try:
        connected = store.catalog.project(project)
        if not connected.connected:
            return
        label_space = parse_label_config(connected.label_config)
    except (NotFoundError, LabelConfigError):
        return
    reader = TaskReader(settings, sources, project, connected.test_share)
    held = body.get("task")
    known = []
    for item in held if isinstance(held, list) else [held]:
        if isinstance(item, Mapping) and isinstance(item.get("id"), int) and isinstance(item.get("data"), Mapping):
            with contextlib.suppress(SourceError):
                known.append(reader.read(label_space, item["id"], item["data"]))
    store.tasks.put(project, known)


def embedded(store: Store, tasks: Sequence[KnownTask], encoder: Encoder) -> dict[int, Array]:
    """The windows' embeddings `[W, D]` of those tasks whose audio the encoder has embedded."""
    recordings = store.embeddings.recordings([task.uri_key for task in tasks])
    vectors = store.embeddings.get(list(recordings.values()), encoder.version, encoder.dtype)
    found = {}
    for task in tasks:
        recording = recordings.get(task.uri_key)
        if recording is not None and recording.sha256 in vectors:
            found[task.task] = vectors[recording.sha256]
    return found
