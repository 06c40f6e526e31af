"""The whole loop as a team has it, on Redis and PostgreSQL with a real Label Studio, while its processes are killed.

A simulated annotator accepts and corrects, suggestions become better, «Start Training» is pressed, the gate lets the
finetuned encoder pass, and all open tasks are suggested anew. Backend and worker die by SIGKILL in the middle of
annotating and of the training, the worker in the middle of the promotion too.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from clapboard.label_studio.client import LabelStudioClient
from clapboard.labels.label_config import parse_label_config
from clapboard.project.known_tasks import TaskReader
from clapboard.sources import AudioSources
from clapboard.store.jobs import State
from clapboard.suggest.prediction import shown_name
from demo.clips import label_config, make_plant_clips
from demo.label_studio_server import LabelStudioServer
from demo.learning import Annotator, LearningProject
from demo.plant import STATES
from tests.support.audio_server import wav
from tests.support.processes import SERVING, Backend, Installation, Running
from tests.support.programs import free_port
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CONFIG = label_config(sorted(STATES))
NUM_CLIPS, NUM_ASIDE = 160, 48
TEST_SHARE = NUM_ASIDE / NUM_CLIPS
HEARD, UNHEARD, HEARD_AGAIN = 20, 6, 26  # annotations before, while and after nobody is there to hear of them
TRAINED_S = 300.0  # forty epochs, whose number no validation cuts short, and the gate


class Site:
    """A backend at one address, and a worker; either may be killed and started again."""

    def __init__(self, house: Installation, port: int) -> None:
        self.house = house
        self._port = port
        self.backend: Backend
        self.worker: Running
        self.start()

    def answer(self, project: int) -> str:
        """The name that the backend gives at `/setup`."""
        return str(self.backend.setup(CONFIG, f"{project}.1795338111").json()["model_version"])

    def kill(self) -> None:
        """SIGKILL to both."""
        self.worker.kill()
        self.backend.process.kill()

    def start(self) -> None:
        """Both anew."""
        self.worker = self.house.start("worker")  # it loads its model while the backend starts
        self.backend = self.house.serve(port=self._port)
        self.worker.wait_for_log(SERVING)

    def start_worker(self) -> None:
        """The worker anew."""
        self.worker = self.house.worker()

    def run(self, *arguments: str) -> str:
        """The output of a `clapboard` command that must succeed."""
        done = self.house.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def site(
    label_studio: LabelStudioServer,
    redis_url: str,
    new_postgres_url: Callable[[], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    port = free_port()
    settings = {
        "broker_url": redis_url,
        "database_url": new_postgres_url(),
        "label_studio_url": label_studio.url,
        "label_studio_api_key": label_studio.token,
        "url": f"http://127.0.0.1:{port}",
        "test_share": TEST_SHARE,
        "job_lease_s": 2.0,
        "prune_quiet_s": 1.0,
        "prune_after_s": 0.0,
        "torch_threads": 1,  # two would wait for each other beside the other tests
        "train_folds": 0,  # the held-out tasks are judges enough here; what folds add has tests of its own
    }
    with Installation(tmp_path_factory.mktemp("site"), "mini", **settings) as house:
        yield Site(house, port)


@pytest.fixture(scope="module")
def learning(
    site: Site, label_studio: LabelStudioServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LearningProject]:
    """A connected, pre-labelled project of the plant's recordings."""
    clips = make_plant_clips(tmp_path_factory.mktemp("clips") / "plant", NUM_CLIPS)
    with LabelStudioClient(site.house.settings) as client:
        archive, project = (client.create_project(title, CONFIG).id for title in ("An archive", "A plant"))
        client.import_files(archive, [clip.path for clip in clips])
        addresses = [task.data["audio"] for task in client.tasks(archive)]
        tasks = client.import_tasks(project, _as_always(site, project, addresses))
        for command in ("connect", "prelabel"):
            site.run(command, "--project", str(project))
        truth = dict(zip(tasks, [clip.label for clip in clips], strict=True))
        with LearningProject(label_studio, site.house.store, project, truth) as found:
            yield found
        for made in (archive, project):
            client.delete_project(made)


def _as_always(site: Site, project: int, addresses: Sequence[str]) -> Iterator[dict[str, str]]:
    """Task data in which each recording has such a name that the draw always sets the same ones aside."""
    settings = site.house.settings
    reader, label_space = TaskReader(settings, AudioSources(settings), project, TEST_SHARE), parse_label_config(CONFIG)
    aside = set(np.random.default_rng(0).permutation(NUM_CLIPS)[:NUM_ASIDE].tolist())
    for number, address in enumerate(addresses):
        named = ({"audio": address, "recording": f"plant {number}.{name}"} for name in itertools.count())
        yield next(data for data in named if reader.read(label_space, 1, data).held_out == (number in aside))


def test_what_people_say_makes_it_better_whatever_is_killed_meanwhile(site: Site, learning: LearningProject) -> None:
    store, project = site.house.store, learning.project
    by_text = learning.stage("texts", [])
    annotator = Annotator(learning.api, project, learning.truth)
    aside = learning.without_suggestion()
    assert len(aside) == NUM_ASIDE

    # People annotate; for a while there is nobody to hear of it.
    _annotate(annotator, NUM_ASIDE + HEARD, first=aside)
    site.kill()
    unheard = _annotate(annotator, UNHEARD)
    site.start()
    _annotate(annotator, HEARD_AGAIN - 1)
    wait_for(lambda: unheard <= {entry.task for entry in store.ledger.standing(project)}, "they weren't heard of")
    learning.wait_until_learnt()
    assert learning.jobs("sync")

    # Somebody goes back. What is known already doesn't undo it, whatever is pruned beside it; the next label does.
    site.run("models", "rollback", "--project", str(project))
    learning.wait_until_pruned()
    site.run("sync", "--project", str(project))  # after which is learnt
    learning.wait_until_pruned()
    back = learning.promoted()
    assert ".zero-shot." in back
    assert learning.model_version() == by_text.model_version == site.answer(project) == shown_name(back)
    assert learning.wrongly_suggested() == []
    told = {version["model_version"]: version["pinned"] for version in json.loads(site.run(*_MODELS, str(project)))}
    assert [version for version, pinned in told.items() if pinned] == [back]
    _annotate(annotator, 1)
    wait_for(lambda: store.versions.pinned(project) == "", "the pin outlives a new label")
    wait_for(lambda: learning.promoted() != back, "nothing is learnt any more")
    learning.wait_until_learnt()

    assert len(store.ledger.revisions(project)) == NUM_ASIDE + HEARD + UNHEARD + HEARD_AGAIN
    by_head = learning.stage("head", annotator.judged)
    assert by_head.model_version == by_text.model_version  # all heads have one name, and the ledger tells them apart
    answered = {entry.model_version for entry in store.ledger.standing(project)} - {""}
    assert len(answered) > 1
    assert {shown_name(version) for version in answered} == {by_head.model_version}
    assert by_head.accuracy > by_text.accuracy  # of 60 tasks, whose draw moves it by 6 points

    # The training is killed with its worker, and goes on where it was; the old version serves meanwhile.
    learning.start_training()
    epoch = wait_for(lambda: _epoch(learning), "no epoch is done", TRAINED_S)
    site.kill()
    site.start()
    assert _is_answered(site.backend)
    assert learning.jobs("train")[0].state == State.RUNNING
    assert learning.model_version() == site.answer(project) == by_head.model_version
    wait_for(lambda: _epoch(learning) > epoch, "the training doesn't go on", TRAINED_S)

    # The promotion is killed as soon as it has begun.
    wait_for(lambda: any(job.progress for job in learning.jobs("promote")), "nothing is promoted", TRAINED_S)
    site.worker.kill()
    site.start_worker()
    trained = learning.finished_training()
    assert trained.state == State.DONE
    assert str(trained.error).startswith("Promoted: it is better than the version in service by ")
    tuned = learning.stage("finetuned", [])
    assert tuned.model_version.startswith("mini-tuned-")
    assert tuned.num_open == by_head.num_open == NUM_CLIPS - NUM_ASIDE - HEARD - UNHEARD - HEARD_AGAIN
    assert tuned.accuracy > by_head.accuracy + 0.1

    # Everybody sees the same: one suggestion for each open task, of the version that answers.
    learning.wait_until_pruned()
    assert learning.wrongly_suggested() == []
    assert learning.model_version() == site.answer(project) == shown_name(learning.promoted())
    told = {version["model_version"]: version["state"] for version in json.loads(site.run(*_MODELS, str(project)))}
    assert {shown_name(version) for version, state in told.items() if state == "promoted"} == {tuned.model_version}
    assert "agrees with the inbox" in site.run("ledger", "--replay", "--project", str(project))
    assert "Traceback" not in site.house.logs
    assert site.house.settings.label_studio_api_key.get_secret_value() not in site.house.logs


_MODELS = ("models", "list", "--json", "--project")


def _annotate(annotator: Annotator, num_tasks: int, first: Sequence[int] = ()) -> set[int]:
    return set(annotator.annotate(num_tasks, first=first))


def _epoch(learning: LearningProject) -> int:
    """How many epochs the training has told of."""
    found = re.match(r"epoch (\d+)", learning.jobs("train")[0].progress or "")
    return int(found[1]) if found else 0


def _is_answered(backend: Backend) -> bool:
    """Whether a clip that nobody has heard before gets its suggestion."""
    content = base64.b64encode(wav(seed=1)).decode()
    (entry,) = backend.results(CONFIG, [{"id": 1, "data": {"audio": f"data:audio/wav;base64,{content}"}}], "0.1")
    return bool(entry)
