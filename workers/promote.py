"""Promotion of a chosen version, and what becomes of the ones it leaves behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from clapboard import prediction
from clapboard.errors import ModelError
from clapboard.head import ZERO_SHOT
from clapboard.labels import parse_label_config
from clapboard.serving import has_checkpoint, is_tuned
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.versions import Version
from workers.encoders import EncoderPool, announce
from workers.rollout import Rolled, Rollout


class Promoter:
    """Runs a project's `promote` and `prune` jobs."""

    def __init__(self, settings: Settings, store: Store, encoders: EncoderPool, rollout: Rollout) -> None:
        self._settings = settings
        self._store = store
        self._encoders = encoders
        self._rollout = rollout

    def run(
        self, project: int, model_version: str, *, on_page: Callable[[int], None] = lambda _num_tasks: None
    ) -> Rolled:
        """Go on with the version's rollout as far as that goes now; `on_page` hears of the tasks gone through.

        Raises `NotFoundError` if there is no such version, `ModelError` if its checkpoint is gone, `LabelStudioError`.
        """
        version = self._store.versions.get(project, model_version)
        if is_tuned(version.encoder) and not has_checkpoint(self._settings, version.encoder):
            raise ModelError(f"Version {model_version} can't be promoted any more: its checkpoint was removed.")
        return self._rollout.run(self._for_label_space_of_today(version), on_page=on_page)

    def prune(self, project: int) -> int:
        """How many replaced versions left Label Studio; then drop the encoders that nothing can roll back to.

        Raises `LabelStudioError`.
        """
        num_gone = self._rollout.prune(project)
        self._retire(project)
        return num_gone

    def _for_label_space_of_today(self, version: Version) -> Version:
        """The version itself, or, where the label config has changed since, its encoder by the texts of the new one."""
        label_config = self._store.catalog.project(version.project).label_config
        label_space = parse_label_config(label_config)
        space_id = prediction.space_id(label_space)
        if version.space_id == space_id:
            return version
        self._store.catalog.put_label_space(space_id, label_config)
        encoder = announce(self._store, self._encoders.get(version.encoder))
        name = prediction.model_version(encoder, label_space)
        today = Version(
            version.project, name, version.encoder, encoder.version, ZERO_SHOT, space_id, manifest={"kind": ZERO_SHOT}
        )
        self._store.versions.put(today)
        return today

    def _retire(self, project: int) -> None:
        """Keep the checkpoint that serves, the one before it and the newest candidate; the ledger is never touched."""
        versions = self._store.versions.of_project(project)
        tuned = {version.encoder: version.encoder_version for version in versions if is_tuned(version.encoder)}
        kept = {version.encoder for version in versions[-1:]}
        served = [version for version in versions if version.promoted_at is not None]
        for version in sorted(served, key=lambda version: version.promoted_at or 0.0, reverse=True):
            if len(kept & {one.encoder for one in served}) < 2:
                kept.add(version.encoder)
        promoted = self._store.versions.promoted(project)
        kept |= {promoted.encoder} if promoted else set()
        candidates = [version for version in versions if is_tuned(version.encoder)]
        kept |= {version.encoder for version in candidates[-1:]}
        for encoder, encoder_version in tuned.items():
            if encoder not in kept:
                shutil.rmtree(self._settings.checkpoint(encoder), ignore_errors=True)
                self._store.embeddings.forget(encoder_version)
