"""The demo's second half: a simulated annotator, whose answers make the suggestions better while he works."""

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

_SETTLED_TIMEOUT_S = 60.0
_TRAINED_TIMEOUT_S = 400.0


@dataclass(frozen=True)
class Stage:
    """How the project stands at one moment: accuracy on the tasks that are still open, acceptance since the last."""

    name: str
    model_version: str
    accuracy: float
    num_open: int
    acceptance: float | None  # of the suggestions that the annotator judged in this stage


class Annotator:
    """Works through a project in Label Studio's own order, accepts what is right and corrects the rest.

    What he sends is what a browser sends: an accepted or corrected result keeps its id and names its prediction.
    """

    def __init__(self, api: httpx.Client, project: int, truth: dict[int, str], *, control: str = "sound") -> None:
        self._api = api
        self._project = project
        self._truth = truth
        self._control = control
        self.judged: list[bool] = []  # each suggestion he had in view: was it right?

    def annotate(self, num_tasks: int, first: Sequence[int] = ()) -> Iterator[int]:
        """The tasks, each once its annotation is stored; those of `first` are opened before all others."""
        for number in range(num_tasks):
            place = f"tasks/{first[number]}" if number < len(first) else f"projects/{self._project}/next"
            task = self._api.get(f"/api/{place}?project={self._project}").raise_for_status().json()
            label = self._truth[task["id"]]
            prediction = task["predictions"][-1] if task["predictions"] else None
            body: dict[str, Any] = {"lead_time": 6.0, "result": [self._result(label, prediction)]}
            if prediction:
                suggested = prediction["result"][0]["value"]["choices"][0]
                self.judged.append(suggested == label)
                body |= {"parent_prediction": prediction["id"], "lead_time": 2.5 if suggested == label else 6.0}
            self._api.post(f"/api/tasks/{task['id']}/annotations", json=body).raise_for_status()
            yield task["id"]

    def _result(self, label: str, prediction: dict[str, Any] | None) -> dict[str, Any]:
        value = {"choices": [label]}
        if prediction:
            return prediction["result"][0] | {"value": value, "origin": "prediction-changed"}
        return {"from_name": self._control, "to_name": "audio", "type": "choices", "value": value, "origin": "manual"}


class LearningProject:
    """Context manager: a connected, pre-labelled project and what is known of it."""

    def __init__(self, server: LabelStudioServer, store: Store, project: int, truth: dict[int, str]) -> None:
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
        """How it stands now."""
        version = self.model_version()
        right = []
        for task in self.tasks():
            held = [one for one in task["predictions"] if one["model_version"] == version and one["result"]]
            if held and not task["is_labeled"]:
                right.append(held[0]["result"][0]["value"]["choices"][0] == self.truth[task["id"]])
        acceptance = sum(judged) / len(judged) if judged else None
        return Stage(name, version, sum(right) / max(1, len(right)), len(right), acceptance)

    def tasks(self) -> list[dict[str, Any]]:
        """All tasks with their predictions, as Label Studio has them."""
        query = {"project": self.project, "page_size": 1000, "fields": "all"}
        return list(self.api.get("/api/tasks", params=query).raise_for_status().json()["tasks"])

    def without_suggestion(self) -> list[int]:
        """The tasks that hold no prediction: in a pre-labelled project those that are set aside."""
        return [task["id"] for task in self.tasks() if not task["predictions"]]

    def wrongly_suggested(self) -> list[int]:
        """The open tasks that have a suggestion, but not exactly one, of the version that people see."""
        version = self.model_version()
        held = {
            task["id"]: [one["model_version"] for one in task["predictions"]]
            for task in self.tasks()
            if not task["is_labeled"]
        }
        return [task for task, versions in held.items() if versions and versions != [version]]

    def model_version(self) -> str:
        """The version whose predictions people see."""
        answer = self.api.get(f"/api/projects/{self.project}").raise_for_status().json()
        return str(answer["model_version"])

    def wait_until_learnt(self) -> None:
        """Until every annotation has been learnt from. Raises `TimeoutError`."""
        self._until(lambda: not self._open_jobs("learn"), _SETTLED_TIMEOUT_S)

    def wait_until_pruned(self) -> None:
        """Until nothing is left of versions that others replaced. Raises `TimeoutError`."""
        self._until(lambda: not self._open_jobs("learn", "prune"), _SETTLED_TIMEOUT_S)

    def start_training(self) -> None:
        """Press «Start Training», as Label Studio's button does."""
        (backend,) = self.api.get("/api/ml", params={"project": self.project}).raise_for_status().json()
        self.api.post(f"/api/ml/{backend['id']}/train", json={}).raise_for_status()

    def trained(self) -> Job:
        """The training's job, once it and what follows from its verdict have ended. Raises `TimeoutError`."""
        self._until(lambda: bool(self.jobs("train")), _SETTLED_TIMEOUT_S)
        self._until(lambda: not self._open_jobs("train", "promote", "learn"), _TRAINED_TIMEOUT_S)
        return self.jobs("train")[0]

    def jobs(self, *kinds: str) -> list[Job]:
        """The project's jobs of these kinds, the newest first."""
        return [job for job in self._store.jobs.newest(project=self.project, limit=2000) if job.kind in kinds]

    def _open_jobs(self, *kinds: str) -> list[Job]:
        return [job for job in self.jobs(*kinds) if job.state in OPEN]

    def _until(self, holds: Callable[[], bool], timeout_s: float) -> None:
        ends_at = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > ends_at:
                raise TimeoutError("Clapboard did not come to rest: `clapboard jobs` says what it is at.")
            time.sleep(0.2)


def show(console: Console, stages: list[Stage]) -> None:
    """Print how it went."""
    table = Table("stage", "accuracy on open tasks", "acceptance", "version", title="What learning brought")
    for stage in stages:
        acceptance = "" if stage.acceptance is None else f"{stage.acceptance:.0%}"
        table.add_row(stage.name, f"{stage.accuracy:.2f} of {stage.num_open}", acceptance, stage.model_version)
    console.print(table)
