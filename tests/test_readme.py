"""README is held to the code: its settings, its commands, its files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from typer.main import get_command

from backend.metrics import Metrics
from clapboard.cli import app
from clapboard.label_studio.tally import RequestTally
from clapboard.settings import Settings, env_name
from clapboard.store import Store
from workers.metrics import WorkerMetrics

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
SETTINGS_ROW = re.compile(r"^\| `([A-Z_]+)` \| (.*?) \| (.*?) \|$", re.MULTILINE)


def test_the_settings_table_names_every_setting_and_no_other() -> None:
    named = [name for name, _, _ in SETTINGS_ROW.findall(README)]
    assert sorted(named) == sorted(env_name(field) for field in Settings.model_fields)


@pytest.mark.parametrize("field", sorted(Settings.model_fields))
def test_the_settings_table_gives_each_default(field: str) -> None:
    defaults = {name: default for name, default, _ in SETTINGS_ROW.findall(README)}
    default = Settings.model_fields[field].default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, tuple):
        default = ",".join(default)
    if isinstance(default, bool):
        default = str(default).lower()
    if isinstance(default, float):
        default = f"{default:g}"
    assert defaults[env_name(field)].strip("`") == (str(default) if default != "" else "empty")


def metrics_in(title: str) -> dict[str, str]:
    """The metrics of README's table with that title, and whether it says that they are histograms."""
    table = README.partition(f"| {title} |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(clapboard_[a-z_]+)` \| .*?(\(histogram\))? \|$", table, re.MULTILINE)
    return {name: "histogram" if is_histogram else "" for name, is_histogram in rows}


def metrics_of(registry: CollectorRegistry) -> dict[str, str]:
    """What the registry serves, under the names that are queried."""
    return {
        family.name + ("_total" if family.type == "counter" else ""): "histogram" * (family.type == "histogram")
        for family in registry.collect()
    }


def test_the_metrics_tables_name_every_metric_and_no_other(tmp_path: Path) -> None:
    store = Store.open(Settings(MODEL_DIR=tmp_path))
    assert metrics_in("metric of the backend") == metrics_of(Metrics(store).registry)
    store.close()
    assert metrics_in("metric of a worker") == metrics_of(
        WorkerMetrics(RequestTally(), torch.device("cpu"), dict).registry
    )


def test_every_command_stands_in_the_readme() -> None:
    for command in get_command(app).commands:  # type: ignore[attr-defined]
        assert f"`clapboard {command}" in README or f"\nclapboard {command}" in README, command


def test_files_that_the_readme_points_to_exist() -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)]+)\)", README)
    assert targets
    for target in targets:
        assert (REPOSITORY / target).exists(), target
