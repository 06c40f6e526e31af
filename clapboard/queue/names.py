"""The names of the queues, for modules that needn't import Celery."""

from __future__ import annotations

INTERACTIVE, SEARCH, LEARN, BATCH, TRAIN = "interactive", "search", "learn", "batch", "train"
QUEUES = (INTERACTIVE, SEARCH, LEARN, BATCH, TRAIN)
"""Most urgent first."""
