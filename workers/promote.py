"""`promote` jobs: a version that a person or the gate chose takes over its project."""

from __future__ import annotations

from collections.abc import Callable

from clapboard.errors import ModelError
from clapboard.labels.label_config import parse_label_config
from clapboard.project.serving import has_checkpoint, is_tuned
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.versions import Version
from clapboard.suggest import prediction
from clapboard.suggest.head import ZERO_SHOT
from workers.encoder_pool import EncoderPool, announce_encoder
from workers.rollout import Rollout, RolloutProgress, Takeover


class Promoter:
    """Runs a project's `promote` jobs."""

    def __init__(self, settings: Settings, store: Store, encoders: EncoderPool, rollout: Rollout) -> None:
        self._settings = settings
        self._store = store
        self._encoders = encoders
        self._rollout = rollout

    def run(
        self, project: int, model_version: str, *, on_page: Callable[[int], None] = lambda _num_tasks: None
    ) -> RolloutProgress:
        """Take the version's rollout as far as it goes now. `on_page` gets the number of tasks in each finished page.

        Raises `NotFoundError` if there is no such version, `ModelError` if its checkpoint is gone, `LabelStudioError`.
        """
        version = self._store.versions.get(project, model_version)
        if is_tuned(version.encoder) and not has_checkpoint(self._settings, version.encoder):
            raise ModelError(f"Version {model_version} can't be promoted any more: its checkpoint was removed.")
        self._encoders.get(version.encoder)  # or it can't be computed here: nothing is changed then
        takeover = Takeover(self._for_todays_labels(version), pinned_as=model_version)
        return self._rollout.run(takeover, on_page=on_page)

    def _for_todays_labels(self, version: Version) -> Version:
        """The version itself or, if the label config has changed since, its encoder with the new labels' texts."""
        label_config = self._store.catalog.project(version.project).label_config
        label_space = parse_label_config(label_config)
        space_id = prediction.space_id(label_space)
        if version.space_id == space_id:
            return version
        self._store.catalog.put_label_space(space_id, label_config)
        encoder = announce_encoder(self._store, self._encoders.get(version.encoder))
        name = prediction.model_version(encoder, label_space)
        todays = Version(
            version.project, name, version.encoder, encoder.version, ZERO_SHOT, space_id, manifest={"kind": ZERO_SHOT}
        )
        self._store.versions.put(todays)
        return todays
