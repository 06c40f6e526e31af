"""The audio that an encoder is calibrated on for int8: a project's, or a folder's."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from clapboard.audio.windows import Waveform, windows
from clapboard.errors import ClapboardError
from clapboard.installation.public_address import audio_sources
from clapboard.labels.label_config import parse_label_config
from clapboard.settings import Settings
from clapboard.store import Store

_WINDOWS_A_FILE = 4

log = logging.getLogger(__name__)


def windows_of_project(settings: Settings, store: Store, project: int, most: int) -> list[Waveform]:
    """At most so many windows `[480000]` of a project's recordings, always the same ones.

    Held-out tasks and audio that can't be used are left out. Raises `NotFoundError`, `LabelConfigError`.
    """
    label_space = parse_label_config(store.catalog.project(project).label_config)
    sources = audio_sources(settings, store)
    tasks = [task for page in store.tasks.of_project(project) for task in page if not task.held_out]
    tasks.sort(key=lambda task: (task.uri_key, task.task))  # a digest's order is as good as a draw

    def waveforms() -> Iterator[Waveform]:
        contents = set()
        for task in tasks:
            try:
                source = sources.fetch(task.uri, task_id=task.task)
                if source.sha256 not in contents:
                    contents.add(source.sha256)
                    yield from _first_windows(
                        source.path, f"Task {task.task}", label_space.channel, settings.max_audio_s
                    )
            except ClapboardError as error:
                log.warning("task %d isn't calibrated on: %s", task.task, error)

    return [*itertools.islice(waveforms(), most)]


def windows_of_files(files: Iterable[Path], most: int, *, channel: str = "") -> list[Waveform]:
    """At most so many windows `[480000]` of the files, without those that aren't audio."""

    def waveforms() -> Iterator[Waveform]:
        for file in files:
            try:
                yield from _first_windows(file, file.name, channel)
            except ClapboardError as error:
                log.warning("%s isn't calibrated on: %s", file.name, error)

    return [*itertools.islice(waveforms(), most)]


def _first_windows(path: Path, name: str, channel: str, longest_s: float = math.inf) -> Iterator[Waveform]:
    """Few, so that no long recording stands for all. A confined process decodes them."""
    first = itertools.islice(windows(path, name=name, channel=channel, longest_s=longest_s), _WINDOWS_A_FILE)
    for window in first:
        yield window.waveform
