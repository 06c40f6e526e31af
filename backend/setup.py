"""`/setup`: the model version that answers a project's label config, and the project as it introduces itself."""

from __future__ import annotations

import threading
from collections import deque

from backend.label_spaces import label_space_of
from backend.served_versions import ServedVersions
from backend.wire import project_id
from clapboard.installation.public_address import PublicAddress
from clapboard.queue.celery_app import LEARN, Waker
from clapboard.store import Store
from clapboard.store.jobs import JobRequest


class SetupService:
    """Answers from memory: Label Studio waits 3 s, and a disk may take longer."""

    def __init__(self, store: Store, versions: ServedVersions, public_address: PublicAddress, waker: Waker) -> None:
        self._store = store
        self._versions = versions
        self._public_address = public_address
        self._waker = waker
        self._answered: dict[int, str] = {}  # by project
        self._introductions: deque[tuple[int, str, str]] = deque()  # project, label config, model version
        self._writing = threading.Lock()

    def setup(self, project: str, label_config: str, label_studio: str = "") -> str:
        """The name in Label Studio of the version that answers the label config.

        Raises `LabelConfigError`, `NoWorkerError`.

        `label_studio` is Label Studio's own address, as it names it.
        """
        self._public_address.receive(label_studio)
        number = project_id(project)
        served = self._versions.serving(number, label_space_of(label_config))
        version = served.shown_as
        if number and self._answered.get(number) != version:
            self._answered[number] = version
            self._introductions.append((number, label_config, version))
        return self._versions.answered_as(number, served)

    def store_introductions(self) -> None:
        """Write down the projects that introduced themselves since the last call; connected ones learn and align.

        One that can't be written stays for the next call. Raises `StoreError`.
        """
        with self._writing:
            self._public_address.store()
            while self._introductions:
                project, label_config, version = self._introductions[0]
                connected = self._store.catalog.connected_projects().get(project)
                self._store.catalog.put_project(project, label_config, version)
                if connected and (connected.label_config, connected.model_version) != (label_config, version):
                    # Labels given before the change hold for the new label config too, as far as it has them.
                    self._store.jobs.add(LEARN, [JobRequest("learn", project)])
                    self._store.jobs.add(LEARN, [JobRequest("align", project)])
                    self._waker.wake(LEARN)
                self._introductions.popleft()
