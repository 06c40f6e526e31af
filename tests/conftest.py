"""Fixtures that any test may ask for, by the module that they live in."""

from __future__ import annotations

pytest_plugins = ["tests.fixtures_label_studio", "tests.fixtures_services"]
