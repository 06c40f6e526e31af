"""What an accept costs beside a real Label Studio: `python -m tests.scale.accept --tasks 1000 --accepts 20`.

An annotation is sent as Label Studio's page sends it. Measured is the time until the next task that its label stream
opens has the suggestion of a head that knows the annotation, how many predictions were sent for it until then and in
all, and how much the store grew. No audio is decoded: embeddings of five heaps of sounds, about which the labels' texts
say nothing, are put into the store. Exits with 1 if an accept took longer than `--most-s`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx

from clapboard.label_studio.client import LabelStudioClient
from clapboard.labels.label_config import parse_label_config
from clapboard.project.known_tasks import embedded
from clapboard.project.serving import find_serving, stored_head
from clapboard.store import Store
from clapboard.store.prediction_records import IN_LABEL_STUDIO, StoredPrediction
from clapboard.suggest.prediction import predict_many, shown_name
from demo.clapboard_up import ClapboardUp
from demo.clips import label_config
from demo.label_studio_server import LabelStudioServer
from tests.bench.learning import LABELS, embed_heaps
from workers.changed_suggestions import is_changed

WAIT_S = 300.0
CONFIG = label_config(list(LABELS))


@dataclass(frozen=True)
class Accept:
    """What one accept cost."""

    seconds: float
    num_sent: int
    grown_bytes: int


class AcceptingProject:
    """A connected project whose tasks are all pre-labelled, and somebody who labels it in Label Studio's order."""

    def __init__(self, api: httpx.Client, store: Store, model: str, project: int, truth: dict[int, str]) -> None:
        self._api = api
        self._store = store
        self._model = model
        self.project = project
        self._truth = truth

    def accepts(self, num_accepts: int) -> Iterator[Accept]:
        """Label so many tasks, and yield what each cost whose head changed a suggestion."""
        for _ in range(num_accepts):
            task = self._next()
            before, size = self._promoted(), self._size()
            began = time.perf_counter()
            self._label(task)
            if self._wait_until_shown(before):
                spent_s = time.perf_counter() - began
                yield Accept(spent_s, self._num_sent(), self._size() - size)

    def wait_until_swept(self) -> float:
        """Seconds until all suggestions are up to date. Raises `RuntimeError` if a task has none, or two."""
        began = time.perf_counter()
        while self._store.displays.get(self.project).model_version or self._store.predictions.num_owed():
            time.sleep(0.2)
        name = shown_name(self._promoted())
        with_one = self._store.predictions.delivered_tasks(self.project, name)
        shown = self._api.get(f"/api/projects/{self.project}/model-versions/").raise_for_status().json()
        if shown != {name: len(self._truth)} or len(with_one) != len(self._truth):
            raise RuntimeError(f"Label Studio holds {shown}, for {len(self._truth)} tasks")
        return time.perf_counter() - began

    def _next(self) -> dict[str, object]:
        path = f"/api/projects/{self.project}/next"
        return dict(self._api.get(path).raise_for_status().json())

    def _label(self, task: dict[str, object]) -> None:
        (prediction,) = task["predictions"]  # type: ignore[misc]
        result = prediction["result"][0] | {"value": {"choices": [self._truth[task["id"]]]}}  # type: ignore[index]
        body = {"result": [result], "lead_time": 4.0, "parent_prediction": prediction["id"]}
        self._api.post(f"/api/tasks/{task['id']}/annotations", json=body).raise_for_status()

    def _wait_until_shown(self, before: str) -> bool:
        """Until the next task shows what the newest head suggests; False if the annotation changes no suggestion."""
        ends_at = time.monotonic() + WAIT_S
        while time.monotonic() < ends_at:
            learn = next(job for job in self._store.jobs.newest(project=self.project, limit=50) if job.kind == "learn")
            if self._promoted() == before:
                if not self._store.jobs.open_ids([learn.id]):
                    return False
                time.sleep(0.005)
                continue
            if self._is_shown(self._next()):
                return True
        raise RuntimeError("The next task never shows the new suggestion")

    def _is_shown(self, task: dict[str, object]) -> bool:
        label_space = parse_label_config(CONFIG)
        serving = find_serving(self._store, self._model, self.project, label_space)
        head = stored_head(self._store, serving, label_space)
        known = self._store.tasks.get(self.project, [int(str(task["id"]))])
        ((task_id, windows),) = embedded(self._store, list(known.values()), serving.encoder).items()
        assert head is not None
        (made,) = predict_many(label_space, [windows], head, serving.model_version)
        new = StoredPrediction(self.project, task_id, serving.model_version, "", made.score, made.result)
        (shown,) = task["predictions"]  # type: ignore[misc]
        old = StoredPrediction(self.project, task_id, "", "", shown["score"], shown["result"])
        return not is_changed(old, new)

    def _promoted(self) -> str:
        version = self._store.versions.promoted(self.project)
        return version.model_version if version else ""

    def _num_sent(self) -> int:
        counts = self._store.predictions.counts_of_version(self.project, self._promoted())
        return sum(counts.get(delivery, 0) for delivery in IN_LABEL_STUDIO)

    def _size(self) -> int:
        path = self._store.database.engine.url.database
        return sum(file.stat().st_size for file in Path(str(path)).parent.glob("clapboard.db")) if path else 0


def main() -> None:
    """Run it, print the figures, and exit with 1 on a miss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--accepts", type=int, default=20)
    parser.add_argument("--most-s", type=float, default=1.0, help="how long the median accept may take")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            LabelStudioServer(folder / "label-studio") as server,
            ClapboardUp(server, folder / "clapboard") as up,
            closing(Store.open(up.settings)) as store,
            LabelStudioClient(up.settings) as client,
        ):
            project = client.create_project("Accepting", CONFIG).id
            addresses = [f"https://host.example/{number}.wav" for number in range(options.tasks)]
            tasks = client.import_tasks(project, [{"audio": address} for address in addresses])
            heaps = embed_heaps(store, up.settings, addresses)
            for command in ("connect", "prelabel"):
                up.run(command, "--project", str(project), CLAPBOARD_TEST_SHARE="0")
            truth = {task: LABELS[heap] for task, heap in zip(tasks, heaps, strict=True)}
            headers = {"Authorization": f"Token {server.token}"}
            with httpx.Client(base_url=server.url, headers=headers, timeout=120) as api:
                accepting = AcceptingProject(api, store, up.settings.model, project, truth)
                accepts = []
                for accept in accepting.accepts(options.accepts):
                    _tell(str(accept))
                    accepts.append(accept)
                swept_s = accepting.wait_until_swept()
    median_s = statistics.median(accept.seconds for accept in accepts)
    _tell(
        f"{options.tasks} tasks, {len(accepts)} heads: median {median_s:.2f} s, "
        f"at most {max(accept.seconds for accept in accepts):.2f} s; at most "
        f"{max(accept.num_sent for accept in accepts)} predictions sent by then; the store grew by "
        f"{sum(accept.grown_bytes for accept in accepts) / len(accepts) / 1e6:.2f} MB an accept; "
        f"all up to date {swept_s:.1f} s after the last"
    )
    sys.exit(median_s > options.most_s)


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
