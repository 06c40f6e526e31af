"""`examine`: each thing that can be wrong is one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clapboard.doctor import examine
from clapboard.errors import AudioError
from clapboard.jobs import BATCH, INTERACTIVE
from clapboard.label_studio.checks import Check
from clapboard.settings import Settings, env_name
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.jobs import JobRequest
from tests.support.audio_server import AudioServer
from tests.support.fake_label_studio import TOKEN, FakeLabelStudio
from tests.support.fixtures_label_studio import RecordingBackend
from tests.support.fixtures_services import free_port

ENCODER = Encoder("mini", "0123456789abcdef", "float32", 2, 10.0)
PROJECT = 7


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
            assert check.message
            assert TOKEN not in check.message
        return by_name

    def worker_comes(self, model: str = "mini") -> None:
        self.store.catalog.worker_alive("a worker", model, "cpu", "interactive,batch,train")
        self.store.catalog.announce_encoder(ENCODER)


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
    assert {name for name, check in found.items() if check.ok} == {"store", "disk", "queue", "broker"}
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


def test_something_else_at_the_backends_address_is_no_backend(clinic: Clinic, label_studio: FakeLabelStudio) -> None:
    for url in (label_studio.url, "http://host with spaces", f"http://127.0.0.1:{free_port()}"):
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
