"""What Label Studio holds and shows of a version, compared with the store and set right where they differ."""

from __future__ import annotations

import logging

from clapboard.errors import LabelStudioError, LabelStudioUnreachable
from clapboard.label_studio.checks import Connection
from clapboard.label_studio.client import LabelStudioClient
from clapboard.project.display import ask, settle
from clapboard.queue.celery_app import LEARN
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import JobRequest
from clapboard.store.prediction_records import IN_LABEL_STUDIO
from clapboard.store.versions import Version
from clapboard.suggest.prediction import shown_name

log = logging.getLogger(__name__)


class ShownVersion:
    """Keeps Label Studio in step with a project's version. Without a client, only the store is written."""

    def __init__(self, settings: Settings, store: Store, client: LabelStudioClient | None) -> None:
        self._settings = settings
        self._store = store
        self._client = client

    def show(self, version: Version) -> None:
        """Record that the version answers the project, and have Label Studio show it. Raises `LabelStudioError`."""
        name = shown_name(version.model_version)
        label_config = self._store.catalog.project(version.project).label_config
        self._store.catalog.put_project(version.project, label_config, name)
        if self._client is None:
            self._store.displays.shows(version.project, name)
        else:
            settle(self._store, self._client, self._settings, version.project, name)

    def ask(self, version: Version) -> None:
        """Have Label Studio ask for what its label stream opens; if it can't be changed now, an `align` job does so."""
        if self._client is None:
            return
        try:
            ask(self._store, self._client, self._settings, version.project)
        except LabelStudioError as error:
            log.warning("Label Studio shows what it has stored: %s", error)
            self._store.jobs.add(LEARN, [JobRequest("align", version.project)])

    def is_shown(self, version: Version) -> bool:
        """Whether Label Studio already shows predictions under the version's name, so that only some have to change."""
        return self._store.displays.get(version.project).shown_as == shown_name(version.model_version)

    def has_lost_predictions(self, version: Version) -> bool:
        """Whether Label Studio holds fewer predictions of the version's name than it was given, as after a prune."""
        if self._client is None:
            return False
        name = shown_name(version.model_version)
        counts = self._store.predictions.counts(version.project, name)
        num_given = sum(counts.get(delivery, 0) for delivery in IN_LABEL_STUDIO)
        return self._client.model_versions(version.project).get(name, 0) < num_given

    def num_undelivered(self, version: Version) -> int:
        """How many predictions of its name are still to be pushed, those that Label Studio has lost included."""
        if self._client is None:
            return 0
        project, name = version.project, shown_name(version.model_version)
        num_owed = self._store.predictions.num_owed(project, name)
        if not num_owed and self.has_lost_predictions(version):
            log.warning("Label Studio has fewer predictions of %s than it was given", name)
            self._store.predictions.owe_anew(project, name)
            num_owed = self._store.predictions.num_owed(project, name)
        return num_owed

    def verify(self, version: Version) -> None:
        """Show the version again, check that Label Studio agrees, and push anew what it has lost.

        Raises `LabelStudioError`; `LabelStudioUnreachable` if it still shows another version.
        """
        self.show(version)
        if self._client is None:
            return
        versions = Connection.look(self._client, self._settings, version.project).versions(
            shown_name(version.model_version)
        )
        if not versions.ok:
            raise LabelStudioUnreachable(versions.message)
        self.num_undelivered(version)
