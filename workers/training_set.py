"""A project's labels and audio → the specification of a training run."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clapboard.errors import ClapboardError, NotFoundError, TrainingError
from clapboard.feedback.consensus import TaskLabels
from clapboard.installation.public_address import audio_sources
from clapboard.labels.label_config import parse_label_config
from clapboard.logs import carry
from clapboard.plurals import counted
from clapboard.project.agreement import agreement
from clapboard.project.serving import Serving, find_serving, is_tuned
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.tasks import KnownTask
from clapboard.suggest.head import ZERO_SHOT
from training.finetuning.groups import groups_of
from training.finetuning.snapshot import learnt_from, read_snapshot
from training.finetuning.spec import RUN, SERVED_HEAD, ClipSpec, RunSpec
from workers.evidence import Evidence, judged_before

_FETCHES_AT_ONCE = 8

log = logging.getLogger(__name__)


class TrainingSet:
    """Collects what a training run learns from, into a folder."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._sources = audio_sources(settings, store)

    def collect(self, project: int, folder: Path) -> None:
        """Write the audio, the head that serves and, last, the run's specification.

        Raises `TrainingError` if there are no labels, `NotFoundError`, `LabelConfigError`, `NoWorkerError`.
        """
        self._store.ledger.catch_up()
        label_config = self._connected_label_config(project)
        label_space = parse_label_config(label_config)
        serving = find_serving(self._store, self._settings.model, project, label_space)
        agreed = agreement(self._store, project, label_space)
        of_clips = {control.name for control in label_space.predicted}
        labels = {
            task: of_task
            for task, agreed_labels in agreed.labels.items()
            if (of_task := {name: answer for name, answer in agreed_labels.items() if name in of_clips})
        }
        tasks = self._store.tasks.get(project, list(labels))
        if not tasks:
            raise TrainingError(
                f"Project {project} has no labels to learn from yet: accept or correct some suggestions."
            )
        if serving.head != ZERO_SHOT:
            head = self._store.versions.head(serving.encoder.version, serving.space_id, serving.head)
            (folder / SERVED_HEAD).write_bytes(head.to_bytes())
        base, served = (self._settings.checkpoint(name) for name in (self._settings.model, serving.encoder.model))
        start = served if self._settings.finetune_from == "serving" else base
        evidence = Evidence.of(self._store, project, serving, self._served_has_learnt(serving))
        clips = self._clips(project, tasks, labels, folder, evidence)
        spec = RunSpec(
            base=base,
            served=served,
            served_head=serving.head,
            label_config=label_config,
            clips=clips,
            config={},
            max_fall=self._settings.max_class_fall,
            device=self._settings.device,
            dtype=self._settings.dtype,
            engine=self._settings.engine,
            fusion=self._settings.fusion,
            longest_s=self._settings.max_audio_s,
            batch_size=self._settings.batch_size,
            threads=self._settings.torch_threads,
            calibrations={
                self._settings.checkpoint(name): self._settings.calibration_dir(name)
                for name in (self._settings.model, serving.encoder.model)
            },
            start=start,
            learnt_before=sorted(evidence.learnt or ()) if start != base else [],
            num_folds=self._settings.train_folds,
            is_tried=self._settings.canary_labels > 0,
            judged_before=judged_before(self._store, project),
        )
        _write(spec, folder)

    def collect_again(self, snapshot: RunSpec, project: int, folder: Path) -> None:
        """Write the same again as an earlier run's snapshot has it, without what it was judged by.

        Raises `TrainingError` if a recording can't be had any more, has changed, or was forgotten.
        """
        if snapshot.num_forgotten:
            clips = counted(snapshot.num_forgotten, "clip")
            raise TrainingError(f"The finetuning can't be repeated: {clips} of it had to be forgotten.")
        tasks = self._store.tasks.get(project, [clip.task for clip in snapshot.clips])
        paths = self._fetch(tasks, folder)
        missing = [clip.task for clip in snapshot.clips if paths.get(clip.task, Path()).name != clip.path.name]
        if missing:
            named = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
            raise TrainingError(
                f"The finetuning can't be repeated: {counted(len(missing), 'recording')} (of tasks {named}) can't be "
                "had any more, or changed. Bring their audio back."
            )
        fetched = [clip.model_copy(update={"path": paths[clip.task]}) for clip in snapshot.clips]
        _write(snapshot.model_copy(update={"clips": fetched, "is_repetition": True}), folder)

    def _served_has_learnt(self, serving: Serving) -> set[str] | None:
        """What the serving encoder has learnt from; None if nobody knows any more."""
        if not is_tuned(serving.encoder.model):
            return set()
        snapshot = read_snapshot(Path(self._settings.checkpoint(serving.encoder.model)))
        return None if snapshot is None else learnt_from(snapshot)

    def _connected_label_config(self, project: int) -> str:
        record = self._store.catalog.project(project)
        if not record.connected:
            raise NotFoundError(f"Project {project} is not connected: run `clapboard connect --project {project}`.")
        return record.label_config

    def _clips(
        self,
        project: int,
        tasks: Mapping[int, KnownTask],
        labels: Mapping[int, TaskLabels],
        folder: Path,
        evidence: Evidence,
    ) -> list[ClipSpec]:
        paths = sorted(self._fetch(tasks, folder).items())
        suggested = self._store.tasks.suggested_contents(project)
        groups = groups_of([(tasks[task].source, path.stem) for task, path in paths])
        clips = [
            _clip_spec(tasks[task], path, group, labels[task], suggested, evidence)
            for (task, path), group in zip(paths, groups, strict=True)
        ]
        return [clip for clip in clips if clip is not None]

    def _fetch(self, tasks: Mapping[int, KnownTask], folder: Path) -> dict[int, Path]:
        """The audio of the tasks, by task id, without those whose audio can't be fetched.

        It is linked into the folder, since the cache may drop it before the run ends.
        """
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
            paths = zip(tasks, pool.map(carry(fetch), tasks.values()), strict=True)
            return {task: path for task, path in paths if path is not None}


def _write(spec: RunSpec, folder: Path) -> None:
    building = folder / f"{RUN}.building"
    building.write_text(spec.model_dump_json(), "utf-8")
    building.replace(folder / RUN)


def _clip_spec(
    task: KnownTask, path: Path, group: str, labels: TaskLabels, suggested: set[str], evidence: Evidence
) -> ClipSpec | None:
    """The task's clip; None if it can neither be trained on nor be judged by.

    A held-out clip isn't judged by if its labels owe something to a suggestion, which the same sound may have got under
    another address before anybody could know. A clip that only shares the sound of a held-out task isn't trained on,
    and adds nothing to the test.
    """
    if task.is_twin or (task.held_out and path.stem in suggested):
        return None
    fair = {
        control: agreed
        for control, agreed in labels.items()
        if not task.held_out or not (agreed.bulk or agreed.suggestion_biased)
    }
    if not fair:
        return None
    return ClipSpec(
        path=path,
        group=group,
        targets={control: agreed.labels for control, agreed in fair.items()},
        weight=min(agreed.weight for agreed in fair.values()),
        is_test=task.held_out,
        task=task.task,
        evidence=() if task.held_out else evidence.controls(task.task, group, path.stem, fair),
    )
