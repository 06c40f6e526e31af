"""The demo's last part: a simulated annotator, whose answers improve the suggestions while he works."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import httpx
from rich.console import Console
from rich.table import Table

from clapboard.store import Store
from clapboard.store.jobs import OPEN, Job
from demo.label_studio_server import LabelStudioServer

_SETTLED_TIMEOUT_S = 240.0  # 60 s are too few on a busy machine, where Label Studio rests between changes
_TRAINED_TIMEOUT_S = 400.0


@dataclass(frozen=True)
class Stage:
    """How good the suggestions are at one moment, measured on the tasks that are still open."""

    name: str
    model_version: str
    accuracy: float
    num_open: int
    acceptance: float | None  # the share that the annotator accepted since the stage before, if he judged any


class Annotator:
    """Works through a project in Label Studio's order, accepts right suggestions and corrects wrong ones.

    What he sends is what a browser sends: an accepted or corrected result keeps its id and names its prediction.
    """

    def __init__(self, api: httpx.Client, project: int, truth: dict[int, str], *, control: str = "sound") -> None:
        self._api = api
        self._project = project
        self._truth = truth
        self._control = control
        self.judged: list[bool] = []  # whether each suggestion that he saw was right

    def annotate(self, num_tasks: int, first: Sequence[int] = ()) -> Iterator[int]:
        """Annotate that many tasks, those of `first` before all others. Each task id, once its annotation is stored."""
        for number in range(num_tasks):
            path = f"tasks/{first[number]}" if number < len(first) else f"projects/{self._project}/next"
            task = self._api.get(f"/api/{path}?project={self._project}").raise_for_status().json()
            label = self._truth[task["id"]]
            prediction = task["predictions"][-1] if task["predictions"] else None
            annotation: dict[str, Any] = {"lead_time": 6.0, "result": [self._result(label, prediction)]}
            if prediction:
                suggested_label = _choice(prediction)
                self.judged.append(suggested_label == label)
                lead_time = 2.5 if suggested_label == label else 6.0
                annotation |= {"parent_prediction": prediction["id"], "lead_time": lead_time}
            self._api.post(f"/api/tasks/{task['id']}/annotations", json=annotation).raise_for_status()
            yield task["id"]

    def _result(self, label: str, prediction: dict[str, Any] | None) -> dict[str, Any]:
        value = {"choices": [label]}
        if prediction:
            return prediction["result"][0] | {"value": value, "origin": "prediction-changed"}
        return {"from_name": self._control, "to_name": "audio", "type": "choices", "value": value, "origin": "manual"}


class LearningProject:
    """Context manager: a connected project, with the true label of each task."""

    def __init__(self, server: LabelStudioServer, store: Store, project: int, truth: dict[int, str]) -> None:
        """`truth` holds the true label of each task."""
        headers = {"Authorization": f"Token {server.token}"}
        self.api = httpx.Client(base_url=server.url, headers=headers, timeout=120, trust_env=False)
        self._store = store
        self.project = project
        self.truth = truth

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.api.close()

    def stage(self, name: str, judged: list[bool]) -> Stage:
        """How good the suggestions are now; `judged` says of each that the annotator saw whether it was right."""
        version = self.model_version()
        is_right = [
            _choice(prediction) == self.truth[task["id"]]
            for task in self.tasks()
            if not task["is_labeled"]
            for prediction in task["predictions"]
            if prediction["model_version"] == version and prediction["result"]
        ]
        acceptance = sum(judged) / len(judged) if judged else None
        return Stage(name, version, sum(is_right) / max(1, len(is_right)), len(is_right), acceptance)

    def tasks(self) -> list[dict[str, Any]]:
        """All tasks with their predictions, as Label Studio's API gives them."""
        query = {"project": self.project, "page_size": 1000, "fields": "all"}
        return list(self.api.get("/api/tasks", params=query).raise_for_status().json()["tasks"])

    def suggestions(self) -> dict[int, list[tuple[str, float]]]:
        """The label and score of each prediction, by task id; predictions that suggest nothing are left out."""
        return {
            task["id"]: [(_choice(item), float(item["score"])) for item in task["predictions"] if item["result"]]
            for task in self.tasks()
        }

    def without_suggestion(self) -> list[int]:
        """The tasks without a prediction: in a pre-labelled project, the held-out ones."""
        return [task["id"] for task in self.tasks() if not task["predictions"]]

    def wrongly_suggested(self) -> list[int]:
        """The open tasks that have predictions, but not exactly one of the shown version."""
        version = self.model_version()
        versions = {
            task["id"]: [prediction["model_version"] for prediction in task["predictions"]]
            for task in self.tasks()
            if not task["is_labeled"]
        }
        return [task for task, task_versions in versions.items() if task_versions and task_versions != [version]]

    def model_version(self) -> str:
        """The shown name: that of the predictions which people see."""
        answer = self.api.get(f"/api/projects/{self.project}").raise_for_status().json()
        return str(answer["model_version"])

    def promoted(self) -> str:
        """The exact version that serves; empty before any head."""
        version = self._store.versions.promoted(self.project)
        return version.model_version if version else ""

    def wait_until_learnt(self) -> None:
        """Wait until every annotation has been learnt from. Raises `TimeoutError`."""
        self._wait_until(lambda: not self._open_jobs("learn", "sweep"), _SETTLED_TIMEOUT_S)

    def wait_until_pruned(self) -> None:
        """Wait until replaced versions have left Label Studio. Raises `TimeoutError`."""
        self._wait_until(lambda: not self._open_jobs("learn", "sweep", "prune"), _SETTLED_TIMEOUT_S)

    def start_training(self) -> None:
        """Do what Label Studio's button «Start Training» does."""
        (backend,) = self.api.get("/api/ml", params={"project": self.project}).raise_for_status().json()
        self.api.post(f"/api/ml/{backend['id']}/train", json={}).raise_for_status()

    def finished_training(self) -> Job:
        """Wait for the training and for what its verdict starts. The training's job. Raises `TimeoutError`."""
        self._wait_until(lambda: bool(self.jobs("train")), _SETTLED_TIMEOUT_S)
        self._wait_until(lambda: not self._open_jobs("train", "promote", "learn", "sweep"), _TRAINED_TIMEOUT_S)
        return self.jobs("train")[0]

    def jobs(self, *kinds: str) -> list[Job]:
        """The project's jobs of these kinds, the newest first."""
        return [job for job in self._store.jobs.newest(project=self.project, limit=2000) if job.kind in kinds]

    def _open_jobs(self, *kinds: str) -> list[Job]:
        return [job for job in self.jobs(*kinds) if job.state in OPEN]

    def _wait_until(self, holds: Callable[[], bool], timeout_s: float) -> None:
        ends_at = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > ends_at:
                raise TimeoutError("Clapboard still has jobs to do: `clapboard jobs` lists them.")
            time.sleep(0.2)


def show_stages(console: Console, stages: list[Stage]) -> None:
    """Print the stages as a table."""
    table = Table("stage", "accuracy on open tasks", "acceptance", "version", title="What learning brought")
    for stage in stages:
        acceptance = "" if stage.acceptance is None else f"{stage.acceptance:.0%}"
        table.add_row(stage.name, f"{stage.accuracy:.2f} of {stage.num_open}", acceptance, stage.model_version)
    console.print(table)


def _choice(prediction: dict[str, Any]) -> str:
    """The label that a prediction with a result suggests."""
    return str(prediction["result"][0]["value"]["choices"][0])
