"""Attributes of a label config about suggested regions: thresholds, lengths and gaps of Labels, and perRegion controls.

Each may stand on the Labels, for all of its labels, or on one Label, which has precedence. Lengths and gaps are in
seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from xml.etree.ElementTree import Element

from clapboard.errors import LabelConfigError
from clapboard.labels.label_space import Control, RegionLimits

_LONGEST_S = 86_400.0


def threshold_of(title: str, attributes: Mapping[str, Any]) -> float | None:
    """The `model_score_threshold`; None without. Raises `LabelConfigError` unless it is in [0, 1]."""
    text = attributes.get("model_score_threshold")
    if text is None:
        return None
    threshold = _number(text)
    if not 0.0 <= threshold <= 1.0:
        raise LabelConfigError(f'{title} has model_score_threshold="{text}": it must be between 0 and 1.')
    return threshold


def limits_of(title: str, labels: Element, label: Element) -> RegionLimits:
    """The limits of a Label's regions. Raises `LabelConfigError` if one can't be understood."""
    own = label.attrib.get("value", "")
    attributes = {**labels.attrib, **label.attrib}
    threshold = threshold_of(
        f"{title} (label “{own}”)" if "model_score_threshold" in label.attrib else title, attributes
    )
    min_s, max_s, gap_s = (_seconds(title, attributes, name) for name in ("min_duration", "max_duration", "merge_gap"))
    if min_s is not None and max_s is not None and min_s > max_s:
        raise LabelConfigError(f"{title} has a min_duration above its max_duration for “{own}”: exchange them.")
    return RegionLimits(threshold, min_s, max_s, gap_s)


def without_regions_to_label(controls: tuple[Control, ...]) -> tuple[Control, ...]:
    """The controls, of which perRegion ones are predicted only if they are about regions that are."""
    marking = [control for control in controls if control.is_labels and control.predicted]
    return tuple(
        replace(
            control,
            why_not_predicted=(
                f"The {control.kind.capitalize()} “{control.name}” labels single regions (perRegion), "
                "and no Labels that gets suggestions marks any for it."
            ),
        )
        if control.predicted
        and control.per_region
        and not any(control.is_about(labels, label.value) for labels in marking for label in labels.labels)
        else control
        for control in controls
    )


def _seconds(title: str, attributes: Mapping[str, Any], name: str) -> float | None:
    text = attributes.get(name)
    if text is None:
        return None
    seconds = _number(text)
    if not 0.0 <= seconds <= _LONGEST_S:
        raise LabelConfigError(
            f'{title} has {name}="{text}": it must be a number of seconds from 0 to {_LONGEST_S:.0f}.'
        )
    return seconds


def _number(text: Any) -> float:
    try:
        number = float(text)
    except ValueError:
        return -1.0
    return number if math.isfinite(number) else -1.0
