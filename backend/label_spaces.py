"""Parsed label configs, remembered: Label Studio sends a project's config with every request."""

from __future__ import annotations

from functools import lru_cache

from clapboard.labels.label_config import parse_label_config
from clapboard.labels.label_space import LabelSpace


@lru_cache(maxsize=256)
def label_space_of(label_config: str) -> LabelSpace:
    """What the label config asks about its audio. Raises `LabelConfigError`."""
    return parse_label_config(label_config)
