"""Real worker processes, loaded and listening, that embed files which lie in their audio cache."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from clapboard.labels.label_config import parse_label_config
from clapboard.project.prelabel import predict_request
from clapboard.project.serving import find_serving
from clapboard.queue.celery_app import BATCH, CeleryWaker, make_celery
from clapboard.sources import AudioSources
from clapboard.sources.cache import AudioCache
from clapboard.store.tasks import KnownTask
from tests.support.fake_label_studio import CHOICES
from tests.support.processes import Backend, Installation
from tests.support.redis_server import running_redis

PROJECT = 1
REDIS = shutil.which("redis-server")
BROKER = "Redis" if REDIS else "a folder"
"""What Celery's messages go through in the bench."""

_LABELS = parse_label_config(CHOICES)
_CACHE_MB = 32_000
_POLL_S = 0.01
_PATIENCE_S = 600.0


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """CLAPBOARD_BROKER_URL of a Redis of the bench's own, or none where Redis isn't installed."""
    if REDIS is None:
        yield ""
        return
    folder.mkdir(parents=True)
    with running_redis(folder, REDIS) as url:
        yield url


class WarmWorkers:
    """Context manager: workers on one store. What they are given to do lies on disk before the clock starts."""

    def __init__(
        self, folder: Path, model: Path, *, num_threads: int, pinned_to: Sequence[int] = (), **settings: Any
    ) -> None:
        """One worker, or one on each core of `pinned_to`. `settings` are named as in `Settings`."""
        self._pinned_to = pinned_to
        self._installation = Installation(folder, model, torch_threads=num_threads, cache_mb=_CACHE_MB, **settings)
        self._cache = AudioCache(self._installation.settings.audio_cache_dir, max_bytes=10**12, max_file_bytes=10**12)
        self._sources = AudioSources(self._installation.settings)
        self._waker = CeleryWaker(make_celery(self._installation.settings))
        self._tasks = itertools.count(1)

    def __enter__(self) -> Self:
        self._installation.__enter__()
        try:
            if self._pinned_to:
                for core in self._pinned_to:
                    with _pinned(core):
                        self._installation.worker()
            else:
                self._installation.worker()
            store = self._installation.store
            self._served = find_serving(store, self._installation.settings.model, PROJECT, _LABELS)
            store.catalog.put_label_space(self._served.space_id, CHOICES)
        except BaseException:
            self._installation.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._installation.__exit__()

    def serve(self) -> Backend:
        """A backend on the same store."""
        return self._installation.serve()

    def seconds(self, contents: Sequence[bytes]) -> float:
        """How long until the embeddings of all the files are stored. Raises `RuntimeError` if one failed."""
        tasks = self.put_on_disk(contents)
        began = time.perf_counter()
        self.ask_for(tasks)
        self.finish()
        return time.perf_counter() - began

    def put_on_disk(self, contents: Sequence[bytes]) -> list[KnownTask]:
        """A task for each file, which is in the workers' audio cache from now on."""
        tasks = []
        for content in contents:
            number = next(self._tasks)
            uri = f"http://127.0.0.1/{number}"
            key = self._sources.key(uri)
            self._cache.get(key, lambda sink, content=content: sink.write(content), timeout_s=10)
            tasks.append(KnownTask(number, uri, key, source=key, held_out=False))
        return tasks

    def ask_for(self, tasks: Sequence[KnownTask]) -> None:
        """Queue the tasks, as `clapboard prelabel` does."""
        requests = [predict_request(PROJECT, task, self._served, push=False) for task in tasks]
        self._installation.store.jobs.add(BATCH, requests)
        self._waker.wake(BATCH)

    def num_open(self) -> int:
        """How many tasks aren't done."""
        return self._installation.store.jobs.num_open(PROJECT, self._served.model_version)

    def finish(self) -> None:
        """Wait until all is done. Raises `RuntimeError` if a task failed, or nothing happens."""
        gives_up_at = time.monotonic() + _PATIENCE_S
        while self.num_open():
            if time.monotonic() > gives_up_at:
                raise RuntimeError(f"the workers aren't done after {_PATIENCE_S:g} s:\n{self._installation.logs}")
            time.sleep(_POLL_S)
        if failed := self._installation.store.jobs.failed_since(PROJECT, self._served.model_version, 0.0):
            raise RuntimeError(f"{len(failed)} tasks failed, the first because: {failed[0].error}")


@contextmanager
def _pinned(core: int) -> Iterator[None]:
    """What is started in the context may run on this core alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
