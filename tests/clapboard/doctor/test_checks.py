"""`examine`: each thing that can be wrong is one line that says what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clapboard.doctor.checks import examine
from clapboard.errors import AudioError
from clapboard.label_studio.checks import Check
from clapboard.queue.celery_app import BATCH, INTERACTIVE
from clapboard.settings import Settings, env_name
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.jobs import JobRequest
from clapboard.store.plans import Plan
from tests.support.annotation_events import annotation, clip, said
from tests.support.audio_server import AudioServer
from tests.support.fake_label_studio import CHOICES, TOKEN, FakeLabelStudio
from tests.support.fixtures_label_studio import RecordingBackend
from tests.support.programs import free_port

ENCODER = Encoder("mini", "0123456789abcdef", "float32", 2, 10.0)
PROJECT = 7
_REMEDY = re.compile(
    r"\b(add|check|copy|correct|free|give|look|move|raise|restart|run|see to|set|start|switch on|take|try|use)\b", re.I
)


class Clinic:
    """A store, and settings that can be changed before each look."""

    def __init__(self, folder: Path) -> None:
        self.given: dict[str, Any] = {"model_dir": folder / "state", "model": "mini", "port": free_port()}
        self.store = Store.open(self.settings())

    def settings(self, **others: Any) -> Settings:
        return Settings(**{env_name(field): value for field, value in (self.given | others).items()})

    def look(self, project: int | None = None, **others: Any) -> dict[str, Check]:
        """The checks by name; each name once."""
        found = list(examine(self.settings(**others), self.store, project))
        by_name = {check.name: check for check in found}
        assert len(by_name) == len(found), [check.name for check in found]
        for check in found:
            assert check.ok or _REMEDY.search(check.message), check
            assert TOKEN not in check.message
        return by_name

    def worker_comes(self, model: str = "mini") -> None:
        self.store.catalog.worker_alive("a worker", model, "cpu", "interactive,batch,train")
        self.store.catalog.announce_encoder(ENCODER)
        self.store.plans.settle(Plan("sync", "600", self.store.clock() + 600))


@pytest.fixture
def clinic(tmp_path: Path) -> Iterator[Clinic]:
    clinic = Clinic(tmp_path)
    yield clinic
    clinic.store.close()


@pytest.fixture
def label_studio() -> Iterator[FakeLabelStudio]:
    with FakeLabelStudio() as server:
        yield server


def test_a_fresh_installation_is_told_each_thing_that_is_missing(clinic: Clinic) -> None:
    found = clinic.look()
    assert {name for name, check in found.items() if check.ok} == {
        "store",
        "decoding",
        "disk",
        "privacy",
        "queue",
        "encoders",
        "broker",
        "planned finetuning",
    }
    assert "`clapboard worker`" in found["worker"].message
    assert "No worker has loaded mini yet" in found["model"].message
    assert f"http://localhost:{clinic.given['port']}" in found["http backend"].message
    assert "`clapboard serve`" in found["http backend"].message
    assert "LABEL_STUDIO_API_KEY is not set" in found["token"].message


def test_a_healthy_one_is_told_what_there_is(clinic: Clinic, label_studio: FakeLabelStudio) -> None:
    clinic.worker_comes()
    with RecordingBackend("v1") as backend:
        found = clinic.look(url=backend.url, label_studio_url=label_studio.url, label_studio_api_key=TOKEN)
    assert all(check.ok for check in found.values()), found
    assert found["worker"].message == "a worker serves interactive,batch,train with mini on cpu"
    assert "version 0123456789abcdef, 2 dimensions" in found["model"].message
    assert "annotator@example.org" in found["token"].message


def test_what_a_workers_processor_can_and_computes_in_is_told(clinic: Clinic) -> None:
    computing = "AMD EPYC: float32, no bfloat16; it computes in float32, which auto takes on a CPU; engine torch"
    clinic.store.catalog.worker_alive("a worker", "mini", "cpu", "batch", "v1 float32", computing)
    assert clinic.look()["worker"].message == f"a worker serves batch with mini on cpu ({computing})"


def test_a_worker_with_another_model_is_named(clinic: Clinic) -> None:
    clinic.worker_comes(model="other")
    check = clinic.look()["worker"]
    assert not check.ok
    assert check.message == "a worker has loaded other, but CLAPBOARD_MODEL is mini: set both alike."


def test_jobs_that_wait_too_long_and_what_failed_are_told(clinic: Clinic) -> None:
    clinic.store.jobs.record_failure(INTERACTIVE, JobRequest("predict", 1, 1, "v1"), AudioError("It is damaged."))
    assert "1 audio" in clinic.look()["queue"].message
    clinic.store.jobs.add(BATCH, [JobRequest("predict", 1, 2, "v1")])
    with clinic.store.database.write() as connection:
        connection.exec_driver_sql("UPDATE jobs SET created_at = created_at - 1000 WHERE state = 'queued'")
    check = clinic.look()["queue"]
    assert not check.ok
    assert "`clapboard jobs`" in check.message


def test_a_broker_that_is_away_is_told(clinic: Clinic) -> None:
    check = clinic.look(broker_url=f"redis://:{TOKEN}@127.0.0.1:{free_port()}/0")["broker"]
    assert not check.ok
    assert "CLAPBOARD_BROKER_URL" in check.message


def test_a_backend_whose_health_needs_the_password_gets_it(clinic: Clinic) -> None:
    password = {"basic_auth_user": "ls", "basic_auth_pass": "s3cret"}
    with RecordingBackend("v1") as backend:  # as under label-studio-ml
        backend.on_request = lambda request: None if request.credentials == "ls:s3cret" else 401
        assert clinic.look(url=backend.url, **password)["http backend"].ok
        assert not clinic.look(url=backend.url)["http backend"].ok


def test_something_else_at_the_backends_address_is_no_backend(clinic: Clinic, label_studio: FakeLabelStudio) -> None:
    for url in (label_studio.url, "http://nowhere.invalid", f"http://127.0.0.1:{free_port()}"):
        assert not clinic.look(url=url)["http backend"].ok


def test_a_state_folder_that_does_not_exist_yet_is_no_obstacle(clinic: Clinic, tmp_path: Path) -> None:
    database = str(clinic.store.database.engine.url)
    found = clinic.look(model_dir=tmp_path / "not" / "yet", database_url=database, broker_url="redis://127.0.0.1:1")
    assert found["disk"].ok


@pytest.mark.parametrize("token", ["f" * 40, "two words", "☃"])
def test_a_token_that_is_not_accepted_is_a_line_like_any_other(
    clinic: Clinic, label_studio: FakeLabelStudio, token: str
) -> None:
    for project in (None, PROJECT):
        found = clinic.look(project, label_studio_url=label_studio.url, label_studio_api_key=token)
        assert not found["token"].ok
        assert token not in found["token"].message


class TestProject:
    """Of a project's checks, those that aren't Label Studio's own; a real one is asked in other tests."""

    @pytest.fixture
    def connected(self, clinic: Clinic, label_studio: FakeLabelStudio) -> Clinic:
        clinic.worker_comes()
        clinic.given |= {"label_studio_url": label_studio.url, "label_studio_api_key": TOKEN}
        label_studio.tasks[PROJECT] = {}
        return clinic

    def test_a_project_that_does_not_exist_is_told(self, connected: Clinic) -> None:
        found = connected.look(99)
        assert found["token"].ok
        assert "no project 99" in found["project"].message

    def test_without_an_encoder_the_project_is_not_looked_at(self, connected: Clinic) -> None:
        assert "project" not in connected.look(PROJECT, model="another")

    @pytest.mark.parametrize(
        ("config", "reason"),
        [
            ("<View/>", "no Audio object"),
            ('<View><Audio name="a" value="$audio"/><TextArea name="t" toName="a"/></View>', "left to people"),
        ],
    )
    def test_a_label_config_that_gets_no_suggestions_is_told(
        self, connected: Clinic, label_studio: FakeLabelStudio, config: str, reason: str
    ) -> None:
        label_studio.label_config = config
        check = connected.look(PROJECT)["label config"]
        assert not check.ok
        assert reason in check.message

    def test_what_is_not_learnt_from_is_told_and_only_labels_that_are_gone_are_a_fault(self, connected: Clinic) -> None:
        connected.store.catalog.put_project(PROJECT, CHOICES, "v1")
        for number, (task, label) in enumerate(((1, "dog"), (2, "dog"), (2, "rain")), start=1):
            _say(connected.store, number, task, label)
        check = connected.look(PROJECT)["labels"]
        assert check.ok
        assert check.message == (
            "1 task learnt from or tested on. Left out of learning: 1 task without a majority for “clip”. "
            "`clapboard ledger --project 7` names them."
        )
        _say(connected.store, 9, 3, "dog bark")
        check = connected.look(PROJECT)["labels"]
        assert not check.ok
        assert "1 task labelled “dog bark”, which the label config doesn't have" in check.message
        assert "`clapboard labels rename --project 7 'dog bark' NEW`, or give the label alias=" in check.message

    def test_a_label_config_is_told_control_by_control(self, connected: Clinic, label_studio: FakeLabelStudio) -> None:
        rating = '<Rating name="stars" toName="audio"/>'
        label_studio.label_config = label_studio.label_config.replace("</View>", f"{rating}</View>")
        check = connected.look(PROJECT)["label config"]
        assert check.ok
        assert check.message == (
            "suggestions for “clip” (2 labels). "
            "The Rating “stars” is left to people: this release suggests Choices and Labels only."
        )
        label_studio.label_config = f'<View><Audio name="audio" value="$audio"/>{rating}</View>'
        remedy = 'Add Choices or Labels with toName="audio" to the labeling interface'
        assert remedy in connected.look(PROJECT)["label config"].message

    def test_the_first_tasks_audio_is_really_fetched(self, connected: Clinic, label_studio: FakeLabelStudio) -> None:
        assert "no tasks yet" in connected.look(PROJECT)["audio"].message
        with AudioServer() as audio:
            label_studio.add_tasks(PROJECT, audio.task(5), audio.task(6, "missing/b.wav"))
            refused = connected.look(PROJECT)["audio"]
            assert not refused.ok
            assert "CLAPBOARD_ALLOW" in refused.message
            fetched = connected.look(PROJECT, allow_private_urls=True)["audio"]
            assert fetched.ok
            assert "task 5's audio was fetched, 16,044 bytes" in fetched.message
        label_studio.tasks[PROJECT] = {6: {"audio": "ftp://host.example/a.wav"}}
        assert connected.look(PROJECT)["audio"].message.startswith("Task 6: ")
        with AudioServer() as audio:
            label_studio.tasks[PROJECT] = {7: audio.task(7, "missing/b.wav")["data"]}
            missing = connected.look(PROJECT, allow_private_urls=True)["audio"].message
        assert missing.endswith("Correct the address in the task's “audio”, or import the file again.")


def test_queued_jobs_that_no_worker_may_take_are_told(clinic: Clinic) -> None:
    clinic.store.catalog.worker_alive("a worker", "mini", "cpu", "batch", "0123456789abcdef float32")
    request = JobRequest("predict", 1, 1, "v1", encoder="0123456789abcdef float32")
    clinic.store.jobs.add(BATCH, [request, JobRequest("predict", 1, 2, "v2", encoder="float32")])
    assert clinic.look()["encoders"].ok
    clinic.store.jobs.add(BATCH, [JobRequest("predict", 1, 3, "v3", encoder="0123456789abcdef bfloat16")])
    found = clinic.look()["encoders"]
    assert not found.ok
    assert "1 for mini 0123456789abcdef bfloat16" in found.message
    assert "CLAPBOARD_DTYPE" in found.message


def _say(store: Store, number: int, task: int, label: str) -> None:
    action, body = said(annotation(number, clip(label), task=task, by=number))
    store.inbox.append(action, PROJECT, body | {"annotation": body["annotation"] | {"project": PROJECT}}, {})
