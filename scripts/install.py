"""Installs two virtual environments side by side: Clapboard's in .venv, Label Studio's in .venv-label-studio.

`python3 -m scripts.install LEVEL`: `demo` is what the demo needs, `dev` what checks and tests need too, `bench` adds
what the benchmarks compare with. It needs nothing but Python: pip installs uv, and uv installs the rest with pip's
configuration. What is installed already is left alone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from scripts.environment import Environment
from scripts.pip_settings import UvSettings, pip_settings, uv_settings
from scripts.steps import StepError, Steps

REPOSITORY = Path(__file__).resolve().parent.parent
CONSTRAINTS = "constraints.txt"
LABEL_STUDIO_CONSTRAINTS = "demo/constraints-label-studio.txt"

# Each level holds those before it.
EXTRAS = {"demo": "backend,worker", "dev": "dev", "bench": "dev,bench"}
LEVELS = list(EXTRAS)

# Python compiles modules when they are first imported. Doing that here uses the core that Label Studio's migrations
# leave idle.
FIRST_IMPORTS = (
    *("clapboard.cli", "backend.app", "workers.process", "training.finetune"),
    *("transformers.models.clap.modeling_clap", "label_studio_sdk.label_interface"),
)


class Installation:
    """Installs a level in the two environments of a checkout."""

    def __init__(self, repository: Path, level: str, steps: Steps, *, lock: int | None = None) -> None:
        """`lock` is an open file that every child process inherits, and so keeps locked until it ends."""
        self._repository = repository
        self._steps = steps
        self._inherited = () if lock is None else (lock,)
        self._uv = UvSettings()
        scripts = sorted((repository / "scripts").glob("*.py"))
        self._clapboard = Environment(
            repository / ".venv", [repository / "pyproject.toml", repository / CONSTRAINTS, *scripts]
        )
        self._label_studio = Environment(
            repository / ".venv-label-studio", [repository / LABEL_STUDIO_CONSTRAINTS, *scripts]
        )
        recorded = self._clapboard.recorded_level
        self._level = max(level, recorded, key=LEVELS.index) if recorded in LEVELS else level

    def run(self) -> list[str]:
        """Install what is missing or out of date. The messages of the steps that failed."""
        missing: list[Callable[[], None]] = []
        if not (self._clapboard.is_current and self._clapboard.recorded_level == self._level):
            self._clapboard.begin()
            missing.append(self._install_clapboard)
        if not self._label_studio.is_current:
            self._label_studio.begin()
            missing.append(self._install_label_studio)
        if not missing:
            return []
        try:
            self._install_uv()
            with ThreadPoolExecutor() as pool:
                futures = [pool.submit(install) for install in missing]
            return [str(error) for error in map(_step_error, futures) if error]
        except StepError as error:
            return [str(error)]
        finally:
            shutil.rmtree(self._own_cache, ignore_errors=True)

    @property
    def _own_cache(self) -> Path:
        """uv's cache where pip is told to keep none: on the environments' disk, so that uv links files."""
        return self._clapboard.folder / ".uv-cache"

    def _install_uv(self) -> None:
        environment = self._clapboard
        with self._steps.step("uv, which installs the rest", "5 s"):
            if not environment.python.exists():
                self._run(
                    [sys.executable, "-m", "venv", environment.folder],
                    f"Python can't make {environment.folder}: on Debian or Ubuntu, install python3-venv.",
                )
            self._run(
                [environment.python, "-m", "pip", "install", "--quiet", "--constraint", CONSTRAINTS, "uv"],
                "pip can't install uv: look at the network and at `pip config list`.",
            )
            self._uv = uv_settings(pip_settings(environment.python), os.environ, cache=self._own_cache)

    def _install_clapboard(self) -> None:
        environment = self._clapboard
        failure = f"uv can't install Clapboard's packages in {environment.folder}."
        with self._steps.step("Clapboard's packages, torch and CUDA among them (3 GB)", "40 s on a fast network"):
            self._uv_install(environment, CONSTRAINTS, failure, "--editable", f".[{EXTRAS[self._level]}]")
            if self._level == "bench":
                # In a folder of its own, of which the bench reads two modules: it pins numpy 1 and brings a `tests`.
                peers = ["--no-deps", "--upgrade", "--target", ".venv/peers", "laion-clap"]
                self._uv_install(environment, CONSTRAINTS, failure, *peers)
        with self._steps.step("Clapboard's first import", "10 s"):
            command = [str(environment.python), "-c", f"import {', '.join(FIRST_IMPORTS)}"]
            self._run(command, f"Clapboard is installed in {environment.folder}, but can't be imported.")
        environment.finish(self._level)

    def _install_label_studio(self) -> None:
        environment = self._label_studio
        failure = f"uv can't install Label Studio in {environment.folder}."
        with self._steps.step("Label Studio's packages", "20 s"):
            if not environment.python.exists():
                venv = self._uv_command("venv", "--allow-existing", "--python", sys.executable)
                self._run([*venv, environment.folder], failure)
            self._uv_install(environment, LABEL_STUDIO_CONSTRAINTS, failure, "label-studio")
        with self._steps.step("Label Studio's empty database", "25 s"):
            for database in environment.folder.glob("empty-*.sqlite3"):  # perhaps an earlier release's
                database.unlink()
            command = [str(environment.python), "-m", "demo.label_studio_server"]
            self._run(command, f"Label Studio is installed in {environment.folder}, but does not start.")
        environment.finish(LEVELS[0])

    def _uv_command(self, *words: str) -> list[str | Path]:
        return [self._clapboard.folder / "bin" / "uv", *words, "--quiet", "--no-python-downloads"]

    def _uv_install(self, environment: Environment, constraints: str, failure: str, *packages: str) -> None:
        where = ["--python", str(environment.python), "--constraint", constraints, *self._uv.options]
        self._run([*self._uv_command("pip", "install"), *where, *packages], failure)

    def _run(self, command: Sequence[str | Path], failure: str) -> None:
        """Run the command. Raises `StepError` with what it printed, and `failure`, if it fails."""
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        process = subprocess.run(
            command,
            cwd=self._repository,
            env=variables | self._uv.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            pass_fds=self._inherited,
        )
        if process.returncode:
            raise StepError(f"{process.stdout}{process.stderr}".strip() + f"\n{failure}")


def _step_error(future: Future[None]) -> StepError | None:
    """The step error that ended the call, if one did. Raises any other error."""
    try:
        future.result()
    except StepError as error:
        return error
    return None


def main(arguments: list[str]) -> int:
    """Install a level. 0 if it is there now."""
    if len(arguments) != 1 or arguments[0] not in LEVELS:
        return _complain(f"usage: python3 -m scripts.install {'|'.join(LEVELS)}")
    if sys.version_info < (3, 11):  # noqa: UP036  # what pyproject.toml says is read by pip, later
        return _complain(f"{sys.executable} is too old, Clapboard needs Python 3.11: `make PYTHON=python3.11 …`")
    steps = Steps(sys.stdout)
    try:
        with Path(__file__).open() as lock:  # two installations at once would meet in an environment
            _wait_for(lock.fileno(), steps)
            failures = Installation(REPOSITORY, arguments[0], steps, lock=lock.fileno()).run()
    except KeyboardInterrupt:
        return _complain("Interrupted. The same command makes it whole.")
    return _complain(*failures, "The same command goes on from here.") if failures else 0


def _wait_for(lock: int, steps: Steps) -> None:
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    with steps.step("Another installation is under way here: waiting for it", "a minute"):
        fcntl.flock(lock, fcntl.LOCK_EX)


def _complain(*sentences: str) -> int:
    sys.stderr.write("\n".join(sentences) + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
