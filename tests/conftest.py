"""Fixtures that any test may ask for, by the module that they live in."""

from __future__ import annotations

import os

# Tests run several processes at once: with more threads each, they would mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["tests.support.fixtures_label_studio", "tests.support.fixtures_services"]
