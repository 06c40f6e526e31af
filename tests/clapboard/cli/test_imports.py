"""What a command imports before it has done its work: that decides how fast it answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_NOT_FOR_COMMANDS = {
    "boto3",
    "celery",
    "httpx",
    "label_studio_sdk",
    "pandas",
    "scipy",
    "sklearn",
    "torch",
    "transformers",
}
_NOT_WITHOUT_A_STORE = {"numpy", "sqlalchemy"}

_PRINT_PACKAGES = """
import sys
from clapboard.cli import main
try:
    main()
finally:
    print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("command", "unneeded"),
    [
        ("--help", _NOT_FOR_COMMANDS | _NOT_WITHOUT_A_STORE | {"pydantic_settings"}),
        ("config", _NOT_FOR_COMMANDS | _NOT_WITHOUT_A_STORE),
        ("jobs", _NOT_FOR_COMMANDS),
        ("ledger --project 1", _NOT_FOR_COMMANDS),
    ],
)
def test_a_command_imports_no_heavy_package_that_it_does_not_need(
    command: str, unneeded: set[str], tmp_path: Path
) -> None:
    environment = {"MODEL_DIR": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-c", _PRINT_PACKAGES, *command.split()],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    imported = set(done.stderr.splitlines()[-1].split())
    assert done.returncode == 0
    assert "clapboard" in imported
    assert not imported & unneeded


@pytest.mark.parametrize(
    ("role", "unneeded"),
    [
        ("backend.app", {"boto3", "lxml", "pandas", "scipy", "sklearn", "torch", "transformers"}),
        # transformers brings torch._dynamo and scipy along, which can't be avoided.
        ("workers.process", {"boto3", "lxml", "openvino", "pandas", "sklearn", "tensorboard"}),
    ],
)
def test_a_role_starts_without_heavy_packages_that_only_some_of_its_work_needs(role: str, unneeded: set[str]) -> None:
    code = f"import sys, {role}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert role.partition(".")[0] in imported
    assert not imported & unneeded
