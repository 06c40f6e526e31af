"""`prune` jobs: a rollout's last step, once people have paused.

Take the versions that were replaced out of Label Studio, drop what was kept for them alone, and verify what is shown.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from pathlib import Path

from clapboard.label_studio.client import LabelStudioClient
from clapboard.labels.label_config import parse_label_config
from clapboard.project.display import name_in_use
from clapboard.project.lock import ProjectLocks
from clapboard.project.serving import is_tuned
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.versions import Version
from clapboard.suggest import prediction
from clapboard.suggest.prediction import shown_name
from training.finetuning.snapshot import remove_checkpoint
from workers.replaced_versions import Pruned, ReplacedVersions, names_of
from workers.shown_version import ShownVersion

REMEMBERED_S = 6 * 3600.0
"""How long predictions that were replaced are remembered: people may still have tasks open that show them."""

REMEMBERED_NAMES = 3
"""Of how many names in Label Studio all predictions are remembered, that of the version which serves included."""


class Pruner:
    """Runs a project's `prune` jobs. The caller holds the project's lock. Each step may be repeated."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        locks: ProjectLocks,
        shown: ShownVersion,
        client: LabelStudioClient | None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._locks = locks
        self._shown = shown
        self._client = client

    def run(self, project: int) -> Pruned:
        """Prune what may go by now. Raises `LabelStudioError`; `LabelStudioUnreachable` if versions differ after it."""
        chosen = self._chosen(project)
        promoted = self._store.versions.promoted(project)
        pruned = Pruned()
        if promoted is not None:
            pruned = self._take_out(project, promoted, chosen)
            self._forget_replaced(project, promoted, pruned.waiting or {})
            if name_in_use(self._store, project, promoted.model_version) == shown_name(promoted.model_version):
                self._verify(project)
        self._remove_checkpoints(project)
        return pruned

    def _take_out(self, project: int, promoted: Version, chosen: Set[str]) -> Pruned:
        """Take every version of ours out of Label Studio that neither serves nor is about to."""
        if self._client is None:
            return Pruned()
        versions = self._store.versions.of_project(project)
        replaced = {name for version in versions for name in names_of(version.model_version)}
        replaced |= set(self._store.predictions.names(project))
        replaced -= {
            shown_name(version)
            for version in {promoted.model_version} | chosen | self._coming(project, versions, promoted)
        }
        # As an earlier release shows it, until all have today's name, or as the backend answered it lately.
        replaced.discard(promoted.model_version)
        return ReplacedVersions(self._settings, self._store, self._client, self._locks).take_out(project, replaced)

    def _chosen(self, project: int) -> set[str]:
        """Versions that are about to serve because a person or the gate chose them.

        Under a label config that has changed since, such a version is rolled out under another name: that is added.
        """
        chosen = set(self._store.jobs.open_versions("promote", project))
        label_space = parse_label_config(self._store.catalog.project(project).label_config)
        encoders = self._store.catalog.encoders()
        todays_names = {
            prediction.model_version(encoders[version.encoder], label_space)
            for version in self._store.versions.of_project(project)
            if version.model_version in chosen and version.encoder in encoders
        }
        return chosen | todays_names

    def _coming(self, project: int, versions: Sequence[Version], promoted: Version) -> set[str]:
        """Versions that were made since the promoted one took over, and may be about to replace it.

        A refit or a trial that had begun before may store a head late: of an encoder that was replaced, or of a label
        config that is neither today's nor the promoted one's. It never serves, and would keep in view a name that heads
        share.
        """
        label_space = parse_label_config(self._store.catalog.project(project).label_config)
        spaces = {promoted.space_id, prediction.space_id(label_space)}
        served = {shown_name(version.model_version) for version in versions if version.promoted_at is not None}
        return {
            version.model_version
            for version in versions
            if version.promoted_at is None
            and version.created_at >= (promoted.promoted_at or 0.0)
            and version.space_id in spaces
            and shown_name(version.model_version) not in served
        }

    def _forget_replaced(self, project: int, promoted: Version, waiting: Collection[str]) -> None:
        """Forget heads that a later one of the same encoder replaced, and old versions' predictions."""
        versions = self._store.versions.of_project(project)
        newest = {version.encoder_version: version.model_version for version in versions}
        on_trial = self._store.trials.needed(project)
        replaced = [
            version.model_version
            for version in versions
            if version.model_version != newest[version.encoder_version]
            and "verdict" not in version.manifest
            and version.model_version not in waiting
            and version.model_version not in on_trial
        ]
        self._store.versions.forget(project, replaced)
        names = self._store.predictions.names(project)
        shared = [name for name in names if shown_name(name) == name]
        remembered = {*shared[:REMEMBERED_NAMES], *names_of(promoted.model_version), *waiting}
        before = self._store.clock() - REMEMBERED_S
        self._store.predictions.forget_names(project, set(shared) - remembered)
        self._store.predictions.forget_names(project, set(names) - set(shared) - remembered, before=before)
        self._store.predictions.forget_replaced(project, before)

    def _verify(self, project: int) -> None:
        """Have Label Studio show what is promoted by now: deleting a version may have changed that."""
        promoted = self._store.versions.promoted(project)
        assert promoted is not None
        self._shown.verify(promoted)

    def _remove_checkpoints(self, project: int) -> None:
        """Remove finetuned checkpoints, and their embeddings, that nothing can roll back to.

        Kept are the one that serves, the one that served before it, the newest candidate and what is on trial. The
        ledger isn't touched.
        """
        versions = self._store.versions.of_project(project)
        tuned = [version for version in versions if is_tuned(version.encoder)]
        served = [version for version in versions if version.promoted_at is not None]
        served.sort(key=lambda version: version.promoted_at or 0.0, reverse=True)
        kept = {version.encoder for version in versions[-1:]}
        for version in served:  # the last ones first, until two encoders that served are kept
            if len(kept & {version.encoder for version in served}) < 2:
                kept.add(version.encoder)
        kept |= {version.encoder for version in tuned[-1:]}
        on_trial = self._store.trials.needed(project)
        kept |= {version.encoder for version in versions if version.model_version in on_trial}
        if promoted := self._store.versions.promoted(project):
            kept.add(promoted.encoder)
        for encoder, encoder_version in {version.encoder: version.encoder_version for version in tuned}.items():
            if encoder not in kept:
                remove_checkpoint(Path(self._settings.checkpoint(encoder)))
                self._store.embeddings.forget(encoder_version)
