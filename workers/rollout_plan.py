"""A rollout's first step: everything that its later steps work with, read once."""

from __future__ import annotations

import enum
from collections.abc import Set
from dataclasses import dataclass

from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.records import Project
from clapboard.labels.label_space import LabelSpace
from clapboard.project.serving import Serving, find_serving
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.versions import Version
from clapboard.suggest.head import Head
from clapboard.suggest.prediction import shown_name
from workers.canary_suggestions import CanarySuggestions, canary_suggestions
from workers.encoder_pool import EncoderPool, announce_encoder
from workers.head_cache import HeadCache
from workers.shown_version import ShownVersion


class LabelStudioHas(enum.Enum):
    """How many of the version's delivered predictions Label Studio may still hold."""

    NONE = enum.auto()  # the version is new
    SOME = enum.auto()  # some were deleted: all are owed again
    ALL = enum.auto()


@dataclass(frozen=True)
class RolloutPlan:
    """What a rollout of `version` works with.

    Embeddings that are missing are queued under `embeds_with`; tasks in `failed_task_ids` have failed under it and
    aren't waited for. `record` is Label Studio's of the project, None without a token.
    """

    version: Version
    encoder: Encoder
    label_space: LabelSpace
    head: Head
    embeds_with: Serving
    failed_task_ids: Set[int]
    label_studio_has: LabelStudioHas
    record: Project | None
    canary: CanarySuggestions | None = None  # those of some tasks, while a candidate is on trial

    @property
    def project(self) -> int:
        """The project's id."""
        return self.version.project

    @property
    def annotations_per_task(self) -> int:
        """How many annotations complete a task."""
        return self.record.annotations_per_task if self.record else 1


class RolloutPlanner:
    """Makes plans from the store and from Label Studio."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        encoders: EncoderPool,
        heads: HeadCache,
        shown: ShownVersion,
        client: LabelStudioClient | None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._encoders = encoders
        self._heads = heads
        self._shown = shown
        self._client = client

    def plan(self, version: Version, *, is_new: bool) -> RolloutPlan:
        """The plan of a rollout. `is_new`: Label Studio can't hold any prediction of the version.

        Raises `LabelStudioError`, `ModelError` if the version's checkpoint is gone, `NotFoundError` if its head is.
        """
        is_new &= not self._store.predictions.counts(version.project, shown_name(version.model_version))
        has = LabelStudioHas.NONE if is_new else self._label_studio_has(version)
        return self._plan(version, has, self._client.project(version.project) if self._client else None)

    def plan_changes(self, version: Version) -> RolloutPlan:
        """The plan of a version whose name Label Studio shows already. Label Studio isn't asked anything.

        Raises `ModelError` if the version's checkpoint is gone, `NotFoundError` if its head is.
        """
        return self._plan(version, LabelStudioHas.ALL, None)

    def _plan(self, version: Version, has: LabelStudioHas, record: Project | None) -> RolloutPlan:
        loaded = self._encoders.get(version.encoder)
        label_space, head = self._heads.get(loaded, version.space_id, version.head)
        encoder = announce_encoder(self._store, loaded)
        embeds_with = self._embeds_with(version, encoder, label_space)
        return RolloutPlan(
            version=version,
            encoder=encoder,
            label_space=label_space,
            head=head,
            embeds_with=embeds_with,
            failed_task_ids=self._store.jobs.failed_tasks(version.project, embeds_with.model_version),
            label_studio_has=has,
            record=record,
            canary=canary_suggestions(self._store, version.project, label_space),
        )

    def _label_studio_has(self, version: Version) -> LabelStudioHas:
        return LabelStudioHas.SOME if self._shown.has_lost_predictions(version) else LabelStudioHas.ALL

    def _embeds_with(self, version: Version, encoder: Encoder, label_space: LabelSpace) -> Serving:
        """Which version to queue missing embeddings under: the serving one, if it uses the same encoder.

        So heads that follow each other while a project is being embedded share one job a task.
        """
        serving = find_serving(self._store, self._settings.model, version.project, label_space)
        if serving.encoder.version == encoder.version:
            return serving
        frames = bool(label_space.on_frames)
        return Serving(
            encoder, version.head, version.space_id, version.model_version, channel=label_space.channel, frames=frames
        )
