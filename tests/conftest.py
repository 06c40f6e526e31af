"""Fixtures that any test may ask for, by the module that they live in."""

from __future__ import annotations

import os

# Tests run several processes at once: with more threads each, they would mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = [
    "tests.support.run_servers",  # first, since others import it
    "tests.support.fast",
    "tests.support.fixtures_checkpoints",
    "tests.support.fixtures_label_studio",
    "tests.support.local_data",
    "tests.support.longest_first",
    "tests.support.postgres_server",
    "tests.support.real_size",
    "tests.support.redis_server",
]
