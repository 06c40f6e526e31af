"""A canary's half: the tasks whose suggestions a candidate on trial makes, under the name of the version in service."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from clapboard.errors import NotFoundError
from clapboard.labels.label_space import LabelSpace
from clapboard.project.serving import Serving
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.trials import Trial


@dataclass(frozen=True)
class CanaryArm:
    """An open canary, and what answers for it: the candidate's encoder and head, under the canary's own version."""

    trial: Trial
    serving: Serving

    def has(self, task: int, shown_as: str) -> bool:
        """Whether the task gets the candidate's suggestion in place of another that Label Studio shows as this."""
        return self.serving.shown_as == shown_as and self.trial.shows_candidate(task)


def canary_version(candidate: str, serving: Serving) -> str:
    """The model version of a canary's suggestions: a head of its own of the encoder that serves.

    So Label Studio shows it beside those of the version in service, and the ledger tells which of the two was in view.
    """
    encoder, _, space = serving.shown_as.rpartition(".")
    return f"{encoder}.head-canary-{hashlib.sha256(candidate.encode()).hexdigest()[:8]}.{space}"


def canary_arm(
    store: Store, trial: Trial, encoders: Mapping[str, Encoder], label_space: LabelSpace
) -> CanaryArm | None:
    """The canary's half; None if its suggestions aren't shown, or can't be made now."""
    if not trial.shown_as:
        return None
    try:
        candidate = store.versions.get(trial.project, trial.candidate)
    except NotFoundError:
        return None
    encoder = encoders.get(candidate.encoder)
    if encoder is None or encoder.version != candidate.encoder_version:
        return None
    serving = Serving(
        encoder, candidate.head, candidate.space_id, trial.shown_as, label_space.channel, bool(label_space.on_frames)
    )
    return CanaryArm(trial, serving)
