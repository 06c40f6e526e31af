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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
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
from tests.bench.learning import LABELS
from tests.scale.accept_cost import store_size
from tests.scale.cases import Case, Measured, Size
from tests.scale.label_studio_filling import Sounds, copy_tasks, deliver, embed, label_studio_engine
from tests.support.postgres_server import running_postgres
from workers.changed_suggestions import is_changed

WAIT_S = 300.0
START_S = 1200.0  # an empty PostgreSQL has all of Label Studio's migrations before it
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
            before, size = self._promoted(), store_size(self._store)
            began = time.perf_counter()
            self._label(task)
            if self._wait_until_shown(before):
                spent_s = time.perf_counter() - began
                yield Accept(spent_s, self._num_sent(), store_size(self._store) - size)

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


@dataclass(frozen=True)
class Outcome:
    """What some accepts cost, and the seconds until all suggestions were up to date after the last one."""

    accepts: tuple[Accept, ...]
    swept_s: float

    @property
    def median_s(self) -> float:
        """Seconds from an annotation to the next task that shows what was learnt."""
        return statistics.median(accept.seconds for accept in self.accepts)

    @property
    def most_sent(self) -> int:
        """How many predictions were sent at most by then."""
        return max(accept.num_sent for accept in self.accepts)

    @property
    def growth_mb(self) -> float:
        """How much the store grew by an accept."""
        return sum(accept.grown_bytes for accept in self.accepts) / len(self.accepts) / 1e6


def measure(num_tasks: int, num_accepts: int, *, postgres: bool, on_accept: Callable[[Accept], object]) -> Outcome:
    """Accept so many tasks of a project with so many, beside a Label Studio on SQLite or PostgreSQL of its own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        environment, url = {}, ""
        if postgres:
            (folder / "postgres").mkdir()
            socket = stack.enter_context(running_postgres(folder / "postgres"))
            environment = {"DJANGO_DB": "default", "POSTGRE_HOST": socket, "POSTGRE_NAME": "postgres"}
            url = f"postgresql+psycopg://postgres@/postgres?host={socket}"
        server = stack.enter_context(
            LabelStudioServer(folder / "label-studio", environment=environment, start_timeout_s=START_S)
        )
        up = stack.enter_context(ClapboardUp(server, folder / "clapboard", settings={"CLAPBOARD_TEST_SHARE": "0"}))
        store = stack.enter_context(closing(Store.open(up.settings)))
        client = stack.enter_context(LabelStudioClient(up.settings))
        project = client.create_project("Accepting", CONFIG).id
        encoder = store.catalog.encoder(up.settings.model)
        assert encoder is not None
        sounds = Sounds.drawn(num_tasks, len(LABELS), encoder.dim)
        embed(store, up.settings, sounds)
        client.import_tasks(project, [{"audio": sounds.addresses[0]}])
        for command in ("connect", "prelabel"):
            up.run(command, "--project", str(project))
        label_studio = label_studio_engine(server, url)
        tasks = copy_tasks(label_studio, project, sounds.addresses)
        deliver(store, up.settings, label_studio, project, dict(zip(tasks, sounds.addresses, strict=True)), CONFIG)
        label_studio.dispose()
        up.run("connect", "--project", str(project))
        truth = {task: LABELS[heap] for task, heap in zip(tasks, sounds.heaps, strict=True)}
        headers = {"Authorization": f"Token {server.token}"}
        api = stack.enter_context(httpx.Client(base_url=server.url, headers=headers, timeout=120))
        accepting = AcceptingProject(api, store, up.settings.model, project, truth)
        accepts = []
        for accept in accepting.accepts(num_accepts):
            on_accept(accept)
            accepts.append(accept)
        return Outcome(tuple(accepts), accepting.wait_until_swept())


def _measured(size: Size) -> Iterator[Measured]:
    for num_tasks, goal_s in ((1000, 1.0), (size.num_tasks, 1.5)):
        yield from _of(num_tasks, goal_s, postgres=True)
    yield from _of(10_000, 3.0, postgres=False)


def _of(num_tasks: int, goal_s: float, *, postgres: bool) -> Iterator[Measured]:
    outcome = measure(num_tasks, 20, postgres=postgres, on_accept=lambda _: None)
    place = f"{num_tasks:,} tasks, {'PostgreSQL' if postgres else 'SQLite'}"
    yield Measured(f"accept → next task shows it, {place}", outcome.median_s, goal_s, "s")
    yield Measured(f"predictions sent by then, {place}", float(outcome.most_sent), 1000.0, "")
    yield Measured(f"growth of the store by an accept, {place}", outcome.growth_mb, 2.0, "MB")


CASE = Case("accept", _measured)


def main() -> None:
    """Run it, print the figures, and exit with 1 on a miss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--accepts", type=int, default=20)
    parser.add_argument("--most-s", type=float, default=1.0, help="how long the median accept may take")
    parser.add_argument("--postgres", action="store_true", help="Label Studio on PostgreSQL instead of SQLite")
    options = parser.parse_args()
    outcome = measure(
        options.tasks, options.accepts, postgres=options.postgres, on_accept=lambda accept: _tell(str(accept))
    )
    _tell(
        f"{options.tasks} tasks, {len(outcome.accepts)} heads: median {outcome.median_s:.2f} s, "
        f"at most {max(accept.seconds for accept in outcome.accepts):.2f} s; at most {outcome.most_sent} predictions "
        f"sent by then; the store grew by {outcome.growth_mb:.2f} MB an accept; "
        f"all up to date {outcome.swept_s:.1f} s after the last"
    )
    sys.exit(outcome.median_s > options.most_s)


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
