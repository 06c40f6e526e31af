"""A `train` job: the project's labels → a training run in a process of its own → a candidate with its verdict.

A process of its own, so that running out of memory, or a crash of any library, takes nothing else along, and predict
goes on answering. It dies with the worker, and another worker goes on from its last epoch.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from clapboard import prediction
from clapboard.encoder import load_encoder
from clapboard.errors import ClapboardError, InternalError, NotFoundError, TrainingError
from clapboard.feedback.consensus import TaskLabels, consensus
from clapboard.head import ZERO_SHOT, Head
from clapboard.labels import parse_label_config
from clapboard.logs import carry
from clapboard.prediction import model_version
from clapboard.serving import find_serving
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.jobs import Job
from clapboard.store.tasks import KnownTask
from clapboard.store.versions import Version
from training.finetuning.run import HEAD, OUTCOME, RUN, SERVED_HEAD, ClipSpec, Outcome, RunSpec

_FETCHES_AT_ONCE = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finetuned:
    """What came of it. `model_version` is the candidate's; `promote` says that the gate let it pass."""

    model_version: str
    promote: bool
    reason: str


class Finetuner:
    """Runs `train` jobs."""

    def __init__(self, settings: Settings, store: Store, stopping: threading.Event) -> None:
        self._settings = settings
        self._store = store
        self._sources = AudioSources(settings)
        self._stopping = stopping

    def run(self, job: Job) -> Finetuned | None:
        """Train, judge, and keep the candidate with its verdict; what serves is left alone. None: the worker stops.

        Raises `TrainingError` where there is nothing to learn from, `NotFoundError`, `LabelConfigError`,
        `NoWorkerError`, and `InternalError` where the process died, which may be tried again.
        """
        folder = self._settings.model_dir / "training" / f"{job.project}-{job.id}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            outcome = self._outcome(job, folder)
        except TrainingError:
            shutil.rmtree(folder)
            raise
        if outcome is None:
            return None
        version = self._keep(job, folder, outcome)
        shutil.rmtree(folder)
        return Finetuned(version, outcome.promote, outcome.reason)

    def _outcome(self, job: Job, folder: Path) -> Outcome | None:
        if not (folder / RUN).exists():  # a run that was killed goes on with the labels that it began with
            self._store.jobs.report(job, "collecting labels and audio")
            self._prepare(job.project, folder)
        if not (folder / OUTCOME).exists():
            self._train(folder, lambda progress: self._store.jobs.report(job, progress))
        if not (folder / OUTCOME).exists():
            return None
        outcome = Outcome.model_validate_json((folder / OUTCOME).read_text("utf-8"))
        if outcome.error:
            raise TrainingError(outcome.error)
        return outcome

    def _prepare(self, project: int, folder: Path) -> None:
        self._store.ledger.catch_up()
        label_config = self._connected_label_config(project)
        label_space = parse_label_config(label_config)
        served = find_serving(self._store, self._settings.model, project, label_space)
        agreed = consensus(self._store.ledger.standing(project), label_space)
        tasks = self._store.tasks.get(project, list(agreed.labels))
        if not tasks:
            raise TrainingError(
                f"Project {project} has no labels to learn from yet: accept or correct some suggestions."
            )
        if served.head != ZERO_SHOT:
            head = self._store.versions.head(served.encoder.version, served.space_id, served.head)
            (folder / SERVED_HEAD).write_bytes(head.to_bytes())
        paths = self._fetch(tasks, folder)
        clips = [
            clip
            for task, path in sorted(paths.items())
            if (clip := _clip_spec(tasks[task], path, agreed.labels[task])) is not None
        ]
        spec = RunSpec(
            base=self._settings.checkpoint(self._settings.model),
            served=self._settings.checkpoint(served.encoder.model),
            served_head=served.head,
            label_config=label_config,
            clips=clips,
            config={},
            max_fall=self._settings.max_class_fall,
            device=self._settings.device,
            dtype=self._settings.dtype,
            engine=self._settings.engine,
            fusion=self._settings.fusion,
            batch_size=self._settings.batch_size,
            threads=self._settings.torch_threads,
        )
        building = folder / f"{RUN}.building"
        building.write_text(spec.model_dump_json(), "utf-8")
        building.replace(folder / RUN)

    def _connected_label_config(self, project: int) -> str:
        known = self._store.catalog.project(project)
        if not known.connected:
            raise NotFoundError(f"Project {project} is not connected: run `clapboard connect --project {project}`.")
        return known.label_config

    def _fetch(self, tasks: dict[int, KnownTask], folder: Path) -> dict[int, Path]:
        """The audio of those tasks that can be had, linked into the folder: the cache may let go of it."""
        audio = folder / "audio"
        audio.mkdir(exist_ok=True)

        def fetch(task: KnownTask) -> Path | None:
            try:
                source = self._sources.fetch(task.uri, task_id=task.task if task.task > 0 else None)
            except ClapboardError as error:
                log.warning("task %d is left out of training: %s", task.task, error, extra={"task": task.task})
                return None
            path = audio / f"{source.sha256}{source.path.suffix}"
            if not path.exists():
                try:
                    os.link(source.path, path)
                except OSError:  # another file system
                    shutil.copyfile(source.path, path)
            return path

        with ThreadPoolExecutor(_FETCHES_AT_ONCE) as pool:
            fetched = zip(tasks, pool.map(carry(fetch), tasks.values()), strict=True)
            return {task: path for task, path in fetched if path is not None}

    def _train(self, folder: Path, report: Callable[[str], None]) -> None:
        """Run the process to its end. Raises `InternalError` if it dies without an outcome."""
        command = [sys.executable, "-m", "training.finetuning.run", str(folder)]
        with (
            (folder / "stderr.log").open("wb") as errors,
            subprocess.Popen(
                [*_DIE_WITH_PARENT, *command], stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8"
            ) as process,
        ):
            watch = threading.Thread(target=self._stop_with_worker, args=[process], daemon=True)
            watch.start()
            assert process.stdout is not None
            for line in process.stdout:
                report(_told(line))
            code = process.wait()
        if not (folder / OUTCOME).exists() and not self._stopping.is_set():
            log.error("training ended with code %d; its last words are in %s", code, folder / "stderr.log")
            why = "it was killed, perhaps for its memory" if code < 0 else f"it ended with code {code}"
            raise InternalError(f"The training process left no outcome ({why}): it will be tried again, where it was.")

    def _stop_with_worker(self, process: subprocess.Popen[str]) -> None:
        while process.poll() is None:
            if self._stopping.wait(0.5):
                process.terminate()
                return

    def _keep(self, job: Job, folder: Path, outcome: Outcome) -> str:
        """The candidate's version, once its checkpoint lies in its place and its row is written."""
        spec = RunSpec.model_validate_json((folder / RUN).read_text("utf-8"))
        label_space = parse_label_config(spec.label_config)
        space_id = prediction.space_id(label_space)
        base = Path(self._settings.model.rstrip("/")).name
        encoder = f"models/{job.project}/{base}-tuned-{job.id}"
        place = self._settings.model_dir / encoder
        if (folder / "candidate").exists():  # else it was moved before this process was killed
            shutil.rmtree(place, ignore_errors=True)  # of a try that was judged, but not written down
            place.parent.mkdir(parents=True, exist_ok=True)
            (folder / "candidate").replace(place)
        identity = load_encoder(self._settings, encoder).identity
        head = Head.from_bytes((folder / HEAD).read_bytes())
        name = model_version(identity, label_space, head.name)
        manifest = {
            "kind": "finetuned",
            "job": job.id,
            "base": self._settings.model,
            "verdict": outcome.verdict,
            "training": outcome.manifest,
            "clips": _counts(spec),
        }
        version = Version(job.project, name, encoder, identity.version, head.name, space_id, manifest=manifest)
        self._store.catalog.put_label_space(space_id, spec.label_config)
        self._store.versions.put(version, head)
        return name


def _clip_spec(task: KnownTask, path: Path, labels: TaskLabels) -> ClipSpec | None:
    """The task's clip; None where it was set aside for the test, but its labels owe something to a suggestion."""
    fair = {
        control: said
        for control, said in labels.items()
        if not task.set_aside or not (said.bulk or said.suggestion_biased)
    }
    if not fair:
        return None
    return ClipSpec(
        path=path,
        group=task.source,
        targets={control: said.labels for control, said in fair.items()},
        weight=min(said.weight for said in fair.values()),
        is_test=task.set_aside,
    )


def _counts(spec: RunSpec) -> dict[str, int]:
    counted = Counter("test" if clip.is_test else "learnt" for clip in spec.clips)
    return {"learnt": counted["learnt"], "test": counted["test"]}


def _told(line: str) -> str:
    """A line of progress for people."""
    try:
        told = json.loads(line)
    except ValueError:
        return line.strip()[:200]
    if not told.get("epoch"):
        return f"listening to clip {told.get('clips_heard')} of {told.get('clips')}"
    parts = [f"epoch {told['epoch']} of at most {told['epochs']}"]
    parts += [f"loss {told['loss']:.3f}"] if told.get("loss") is not None else []
    parts += [f"validation {told['validation']:.3f}"] if told.get("validation") is not None else []
    parts += [f"{told['eta_s']:.0f} s left at most"] if told.get("eta_s") is not None else []
    return ", ".join(parts)


# util-linux has it everywhere; where it is missing, the process ends with its pipe.
_DIE_WITH_PARENT = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
