"""A training run in a process of its own.

Running out of memory, or a crash of any library, then takes nothing else along, and predicting goes on. The process
dies with its worker.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from clapboard.errors import InternalError
from training.finetuning.spec import OUTCOME

# Every Linux with util-linux has setpriv; without it, the process ends when it writes to its closed pipe.
_DIE_WITH_PARENT = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
_LOOK_EVERY_S = 0.5

log = logging.getLogger(__name__)


def train_in_process(folder: Path, report: Callable[[str], None], stopping: threading.Event) -> None:
    """Run the training that `folder` specifies to its end, or until `stopping` is set.

    `report` gets each line of its progress, in words. Raises `InternalError` if it dies without an outcome.
    """
    command = [*_DIE_WITH_PARENT, sys.executable, "-m", "training.finetuning.run", str(folder)]
    with (
        (folder / "stderr.log").open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8") as process,
    ):
        threading.Thread(target=_terminate_when_stopping, args=[process, stopping], daemon=True).start()
        assert process.stdout is not None
        for line in process.stdout:
            report(_in_words(line))
        code = process.wait()
    if not (folder / OUTCOME).exists() and not stopping.is_set():
        log.error("training ended with code %d; its last lines are in %s", code, folder / "stderr.log")
        why = "it was killed, perhaps for its memory" if code < 0 else f"it ended with code {code}"
        raise InternalError(f"The training process left no outcome ({why}): it will be tried again, where it was.")


def _terminate_when_stopping(process: subprocess.Popen[str], stopping: threading.Event) -> None:
    while process.poll() is None:
        if stopping.wait(_LOOK_EVERY_S):
            process.terminate()
            return


def _in_words(line: str) -> str:
    """A line of the process's progress as a phrase; as it is if it isn't JSON."""
    try:
        progress = json.loads(line)
    except ValueError:
        return line.strip()[:200]
    if not progress.get("epoch"):
        return f"embedding clip {progress.get('clips_heard')} of {progress.get('clips')}"
    parts = [f"epoch {progress['epoch']} of at most {progress['epochs']}"]
    if progress.get("fold"):
        parts.insert(0, f"judging by labelled clips too, fold {progress['fold']} of {progress['folds']}")
    parts += [f"loss {progress['loss']:.3f}"] if progress.get("loss") is not None else []
    parts += [f"validation {progress['validation']:.3f}"] if progress.get("validation") is not None else []
    parts += [f"{progress['eta_s']:.0f} s left at most"] if progress.get("eta_s") is not None else []
    return ", ".join(parts)
