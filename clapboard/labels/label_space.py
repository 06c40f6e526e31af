"""The label space of a project: the controls that label its audio, their labels, and the prompts that describe them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

from clapboard.errors import LabelConfigError, SourceError
from clapboard.labels.prompts import prompts_for
from clapboard.labels.visibility import Visibility


@dataclass(frozen=True)
class RegionLimits:
    """Which of a label's regions to suggest, as the label config says; None where it says nothing.

    `threshold` is the model_score_threshold in [0, 1], `min_s` and `max_s` bound a region's length, and regions that
    are at most `gap_s` apart are one.
    """

    threshold: float | None = None
    min_s: float | None = None
    max_s: float | None = None
    gap_s: float | None = None


@dataclass(frozen=True)
class Label:
    """One label: the value that Label Studio stores for it, and the texts that describe it to CLAP."""

    value: str
    path: tuple[str, ...]  # from the root of a taxonomy; `(value,)` elsewhere
    prompts: tuple[str, ...]
    limits: RegionLimits = field(default_factory=RegionLimits)  # of a Labels' label


@dataclass(frozen=True)
class Control:
    """A control that labels the audio. `kind` is the `type` of its results, `threshold` its model_score_threshold."""

    name: str
    kind: str
    to_name: str
    labels: tuple[Label, ...]
    multiple: bool  # whether several labels may be chosen
    per_region: bool  # whether it labels regions rather than the whole clip
    threshold: float | None
    why_not_predicted: str = ""  # one sentence; empty if the control is predicted
    # Of a control about regions: the Labels and the labels whose regions it is about; empty: those of all.
    of_control: str = ""
    of_labels: tuple[str, ...] = ()

    @property
    def predicted(self) -> bool:
        """Whether this release makes suggestions for the control: for the whole clip, or for regions."""
        return not self.why_not_predicted

    @property
    def is_labels(self) -> bool:
        """Whether the control marks regions, such as `<Labels>`."""
        return self.kind == "labels"

    @property
    def is_about_regions(self) -> bool:
        """Whether the control marks regions or says something about them, rather than about the whole clip."""
        return self.is_labels or self.per_region

    def is_about(self, labels: Control, label: str) -> bool:
        """Whether this perRegion control says something about that control's regions with the label."""
        return self.of_control in ("", labels.name) and (not self.of_labels or label in self.of_labels)


@dataclass(frozen=True)
class LabelSpace:
    """What a project asks about its audio: the Audio object's name, its key in a task's data, and its controls.

    `channel` is the audio channel to embed: `left`, `right`, a number from 1, or empty for the mean of all channels.
    `elsewhere` are sentences on controls like ours that label something else than the audio.
    """

    audio_name: str
    audio_key: str
    controls: tuple[Control, ...]
    channel: str = ""
    visibility: Visibility = field(default_factory=Visibility)  # of all controls, those on other objects too
    elsewhere: tuple[str, ...] = ()

    @property
    def suggested(self) -> tuple[Control, ...]:
        """The controls that this release makes suggestions for."""
        return tuple(control for control in self.controls if control.predicted)

    @property
    def predicted(self) -> tuple[Control, ...]:
        """Those of `suggested` that are about whole clips."""
        return tuple(control for control in self.suggested if not control.is_about_regions)

    @property
    def on_frames(self) -> tuple[Control, ...]:
        """Those of `suggested` that are about regions, so that frames are needed."""
        return tuple(control for control in self.suggested if control.is_about_regions)

    @property
    def marking(self) -> tuple[Control, ...]:
        """Those of `on_frames` that mark regions."""
        return tuple(control for control in self.on_frames if control.is_labels)

    @property
    def fingerprint(self) -> str:
        """8 hex digits that change with whatever changes a prediction, and with nothing else.

        They are part of every model version in a store: the text that is hashed here, class names in `visibility`
        included, must stay as it is.
        """
        controls = [
            [c.name, c.kind, c.multiple, c.threshold, [[label.path, label.prompts] for label in c.labels]]
            for c in self.predicted
        ]
        parts: list[Any] = [self.audio_name, self.audio_key, controls, *filter(None, [self.channel])]
        if self.on_frames:
            parts.append([_region_parts(control) for control in self.on_frames])
        if any(self.visibility.conditions(control.name) for control in self.predicted):
            parts.append(repr(self.visibility))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]

    def audio_uri(self, task_data: Mapping[str, Any]) -> str:
        """The address of the task's audio. Raises `SourceError` if the task's data doesn't hold one."""
        value: Any = task_data.get(self.audio_key)
        if value is None:  # «$clip.url» names a key within a key
            value = task_data
            for key in self.audio_key.split("."):
                value = value.get(key) if isinstance(value, Mapping) else None
        if value is None:
            raise SourceError(
                f"The task has no “{self.audio_key}” in its data: import it with the audio's address there."
            )
        if not isinstance(value, str) or not value.strip():
            kind = "empty" if isinstance(value, str) else f"a {type(value).__name__}"
            raise SourceError(f"The task's “{self.audio_key}” is {kind}: it must be the address of one audio file.")
        return value.strip()


def _region_parts(control: Control) -> list[Any]:
    labels = [[label.path, label.prompts, *astuple(label.limits)] for label in control.labels]
    scope = [control.of_control, control.of_labels]
    return [control.name, control.kind, control.multiple, control.threshold, *scope, labels]


def label_space_of(
    names: Sequence[str], prompts_of: Callable[[str], tuple[str, ...]] = prompts_for, *, regions: bool = False
) -> LabelSpace:
    """The label space of a single Choices, or Labels, with these labels, for use without Label Studio.

    Raises `LabelConfigError` if a label is empty or given twice, and whatever `prompts_of` raises.
    """
    values = [name.strip() for name in names]
    labels = tuple(Label(value, (value,), prompts_of(value)) for value in values)
    if not all(values) or not values:
        raise LabelConfigError("A label is empty: name each, such as --labels “dog bark,rain”.")
    if len(set(values)) < len(values):
        raise LabelConfigError("A label is named twice: name each once.")
    kind = "labels" if regions else "choices"
    control = Control("label", kind, "audio", labels, multiple=regions, per_region=False, threshold=None)
    return LabelSpace("audio", "audio", (control,))
