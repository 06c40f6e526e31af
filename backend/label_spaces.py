"""Parsed label configs, remembered: Label Studio sends a project's config with every request."""

from __future__ import annotations

from functools import lru_cache

from clapboard.labels.label_config import parse_label_config
from clapboard.labels.label_space import LabelSpace

_LARGE_CHARS = 20_000  # hundreds of labels; twenty thousand take 50 MB in memory


def label_space_of(label_config: str) -> LabelSpace:
    """What the label config asks about its audio. Raises `LabelConfigError`."""
    return (_large if len(label_config) > _LARGE_CHARS else _usual)(label_config)


@lru_cache(maxsize=256)
def _usual(label_config: str) -> LabelSpace:
    return parse_label_config(label_config)


@lru_cache(maxsize=4)
def _large(label_config: str) -> LabelSpace:
    return parse_label_config(label_config)
