"""Connecting a project of a real Label Studio to a backend on loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from clapboard.errors import BackendUnreached, LabelStudioError
from clapboard.label_studio.checks import STORED_TITLE, Check, inspect_connection, webhook_url
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.connect import align, connect
from clapboard.label_studio.records import Backend, Project
from clapboard.settings import Settings
from demo.label_studio_server import LabelStudioServer
from tests.support.fixtures_label_studio import (
    CHOICES,
    RecordingBackend,
    Request,
    needs_label_studio,
    prediction,
    settings_for,
)

CREDENTIALS = {"BASIC_AUTH_USER": "jane", "BASIC_AUTH_PASS": "s3cret"}


@pytest.fixture
def client(label_studio_client: LabelStudioClient) -> LabelStudioClient:
    return label_studio_client


@pytest.fixture
def project(two_choices: Project) -> Project:
    return two_choices


@pytest.fixture
def backend() -> Iterator[RecordingBackend]:
    """A backend that asks for the credentials of `settings`."""
    with RecordingBackend("v1", "jane:s3cret") as backend:
        yield backend


@pytest.fixture
def settings(label_studio: LabelStudioServer, backend: RecordingBackend) -> Settings:
    return settings_for(label_studio.url, label_studio.token, CLAPBOARD_URL=backend.url, **CREDENTIALS)


def version_1(label_config: str) -> str:
    assert "<Choices" in label_config
    return "v1"


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def faults(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.message for check in checks if not check.ok}


class TestConnect:
    def test_predictions_and_events_flow_from_then_on(
        self,
        client: LabelStudioClient,
        project: Project,
        settings: Settings,
        backend: RecordingBackend,
        label_studio_api: httpx.Client,
    ) -> None:
        report = connect(client, settings, project.id, version_1)
        assert report.warnings == ()
        assert report.project.model_version == report.model_version == "v1"
        (task,) = client.import_tasks(project.id, [{"audio": "/a.wav"}])
        opened = label_studio_api.get(f"/api/tasks/{task}/", params={"project": project.id}).raise_for_status().json()
        assert [stored["model_version"] for stored in opened["predictions"]] == ["v1"]
        answer = {"result": opened["predictions"][0]["result"]}
        label_studio_api.post(f"/api/tasks/{task}/annotations/", json=answer).raise_for_status()
        event = backend.wait_for("/webhook", lambda request: request.body["action"] == "ANNOTATION_CREATED")
        assert event.body["task"]["id"] == task
        assert event.credentials == "jane:s3cret"

    def test_connecting_again_changes_nothing(
        self, client: LabelStudioClient, project: Project, settings: Settings, backend: RecordingBackend
    ) -> None:
        assert connect(client, settings, project.id, version_1).changes
        num_events = len(backend.events())
        again = connect(client, settings, project.id, version_1)
        assert (again.changes, again.warnings) == ((), ())
        assert len(client.backends(project.id)) == len(client.webhooks(project.id)) == 1
        assert len(backend.events()) == num_events

    def test_what_somebody_broke_is_repaired(
        self,
        client: LabelStudioClient,
        project: Project,
        settings: Settings,
        backend: RecordingBackend,
        label_studio_api: httpx.Client,
    ) -> None:
        connect(client, settings, project.id, version_1)
        (webhook,) = client.webhooks(project.id)
        client.remove_webhook(webhook.id)
        label_studio_api.patch(f"/api/projects/{project.id}/", json={"model_version": ""}).raise_for_status()
        client.add_backend(project.id, url=backend.url, title="old", user="jane", password="s3cret")
        report = connect(client, settings, project.id, version_1)
        assert len(report.changes) == 3
        assert faults(inspect_connection(client, settings, project.id, "v1")) == {}

    def test_a_backend_that_moved_keeps_its_place(
        self, client: LabelStudioClient, project: Project, settings: Settings, backend: RecordingBackend
    ) -> None:
        before = connect(client, settings, project.id, version_1)
        with RecordingBackend("v1") as elsewhere:
            moved = settings_for(
                client.url, settings.label_studio_api_key.get_secret_value(), CLAPBOARD_URL=elsewhere.url
            )
            report = connect(client, moved, project.id, version_1)
            assert "is now the one at" in report.changes[0]
            assert [found.url for found in client.backends(project.id)] == [elsewhere.url]
            assert [found.url for found in client.webhooks(project.id)] == [webhook_url(moved)]
        assert before.project.model_version == report.project.model_version

    def test_uncertainty_sampling_stays_as_it_is(
        self, client: LabelStudioClient, project: Project, settings: Settings, label_studio_api: httpx.Client
    ) -> None:
        url = f"/api/projects/{project.id}/"
        label_studio_api.patch(url, json={"sampling": "Uncertainty sampling"}).raise_for_status()
        connect(client, settings, project.id, version_1)
        assert label_studio_api.get(url).json()["sampling"] == "Uncertainty sampling"

    def test_a_backend_that_is_not_running_is_said_to_be_out_of_reach(
        self, client: LabelStudioClient, project: Project, label_studio: LabelStudioServer
    ) -> None:
        nobody = f"http://127.0.0.1:{next(port for port in (40134, 40135, 14037) if not listens(port))}"
        settings = settings_for(label_studio.url, label_studio.token, CLAPBOARD_URL=nobody)
        with pytest.raises(BackendUnreached, match=r"can't reach the backend at .* is it running") as error:
            connect(client, settings, project.id, version_1)
        assert error.value.retryable  # it may be up a moment later
        assert "<a href" not in str(error.value)
        assert client.backends(project.id) == []

    def test_wrong_credentials_are_said_to_be_wrong_and_not_shown(
        self, client: LabelStudioClient, project: Project, label_studio: LabelStudioServer, backend: RecordingBackend
    ) -> None:
        wrong = {"BASIC_AUTH_USER": "jane", "BASIC_AUTH_PASS": "gu3ss"}
        settings = settings_for(label_studio.url, label_studio.token, CLAPBOARD_URL=backend.url, **wrong)
        with pytest.raises(LabelStudioError, match="refuses the user name and password") as error:
            connect(client, settings, project.id, version_1)
        assert "gu3ss" not in str(error.value)

    def test_a_backend_of_another_version_is_warned_of(
        self, client: LabelStudioClient, project: Project, settings: Settings, backend: RecordingBackend
    ) -> None:
        backend.model_version = "v0"
        (warning,) = connect(client, settings, project.id, version_1).warnings
        assert "the backend answers «v0»" in warning
        assert "start the backend with the settings of this command" in warning


class TestAlign:
    def test_the_three_versions_become_one_and_no_event_follows_where_they_are(
        self, client: LabelStudioClient, project: Project, settings: Settings, backend: RecordingBackend
    ) -> None:
        connect(client, settings, project.id, version_1)
        backend.model_version = "v2"
        assert align(client, settings, project.id, "v2")
        (found,) = client.backends(project.id)
        assert (found.title, found.model_version, client.project(project.id).model_version) == ("v2", "v2", "v2")
        num_events = len(backend.events())
        assert not align(client, settings, project.id, "v2")
        assert len(backend.events()) == num_events

    @pytest.mark.parametrize("interrupted_after", ["the title", "the deletion of the old version"])
    def test_it_takes_up_what_an_interruption_left(
        self,
        client: LabelStudioClient,
        project: Project,
        settings: Settings,
        backend: RecordingBackend,
        label_studio_api: httpx.Client,
        interrupted_after: str,
    ) -> None:
        connect(client, settings, project.id, version_1)
        (task,) = client.import_tasks(project.id, [{"audio": "/a.wav"}])
        client.push_predictions(project.id, [prediction(task)])
        backend.model_version = "v2"
        (found,) = client.backends(project.id)
        client.update_backend(found.id, project.id, url=backend.url, title="v2", user="jane", password="s3cret")
        if interrupted_after == "the title":
            client.set_model_version(project.id, "v1")
        else:
            path = f"/api/projects/{project.id}/model-versions/"
            label_studio_api.request("DELETE", path, json={"model_version": "v1"}).raise_for_status()
        assert client.project(project.id).model_version != "v2"
        assert align(client, settings, project.id, "v2")
        assert faults(inspect_connection(client, settings, project.id, "v2")) == {}

    def test_a_project_shows_what_it_has_stored_or_asks_and_bears_the_version_both_ways(
        self,
        client: LabelStudioClient,
        project: Project,
        settings: Settings,
        backend: RecordingBackend,
        label_studio_api: httpx.Client,
    ) -> None:
        def asked_for_the_next() -> tuple[list[str], int]:
            before = len(backend.received("/predict"))
            shown = label_studio_api.get(f"/api/projects/{project.id}/next").raise_for_status().json()["predictions"]
            return [one["model_version"] for one in shown], len(backend.received("/predict")) - before

        (task,) = client.import_tasks(project.id, [{"audio": "/a.wav"}])
        connect(client, settings, project.id, version_1)
        assert not align(client, settings, project.id, "v1", is_live=False)  # nothing is stored: it has to ask
        assert [found.title for found in client.backends(project.id)] == ["v1"]
        client.push_predictions(project.id, [prediction(task)])
        assert align(client, settings, project.id, "v1", is_live=False)
        num_setups = len(backend.received("/setup"))
        assert asked_for_the_next() == (["v1"], 0)
        assert len(backend.received("/setup")) == num_setups  # it didn't even ask which version there is
        assert faults(inspect_connection(client, settings, project.id, "v1")) == {}
        connect(client, settings, project.id, version_1)  # once more: it stays as it was
        assert [found.title for found in client.backends(project.id)] == [STORED_TITLE]

        client.push_predictions(project.id, [prediction(task, "v2")])
        backend.model_version = "v2"
        assert align(client, settings, project.id, "v2", is_live=False)
        assert asked_for_the_next() == (["v2"], 0)
        backend.model_version = "v3"
        assert align(client, settings, project.id, "v3", is_live=True)
        assert asked_for_the_next() == (["v3"], 1)
        assert client.project(project.id).model_version == "v3"

    @pytest.mark.parametrize("path", ["/health", "/setup"])
    def test_a_backend_that_fails_for_a_moment_is_asked_again(
        self,
        client: LabelStudioClient,
        project: Project,
        settings: Settings,
        backend: RecordingBackend,
        monkeypatch: pytest.MonkeyPatch,
        path: str,
    ) -> None:
        connect(client, settings, project.id, version_1)
        backend.model_version = "v2"
        sets, outcomes = client.update_backend, []

        def set_while_busy(*arguments: Any, **fields: Any) -> Backend:
            is_busy = not outcomes
            backend.on_request = lambda request: 503 if is_busy and request.path == path else None
            outcomes.append("refused")
            changed = sets(*arguments, **fields)
            outcomes[-1] = "set"
            return changed

        monkeypatch.setattr(client, "update_backend", set_while_busy)
        assert align(client, settings, project.id, "v2")
        assert outcomes == ["refused", "set"]
        assert [found.title for found in client.backends(project.id)] == ["v2"]

    def test_a_title_that_a_request_under_way_sets_back_is_set_again(
        self,
        client: LabelStudioClient,
        project: Project,
        settings: Settings,
        backend: RecordingBackend,
        label_studio_api: httpx.Client,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        connect(client, settings, project.id, version_1)
        (task,) = client.import_tasks(project.id, [{"audio": "/a.wav"}])
        client.push_predictions(project.id, [prediction(task)])
        is_asked, may_answer = threading.Event(), threading.Event()

        def hang(request: Request) -> None:
            if request.path == "/setup" and not is_asked.is_set():
                is_asked.set()
                may_answer.wait(2.5)

        sets, num_set = client.update_backend, 0

        def set_meanwhile(*arguments: Any, **fields: Any) -> Backend:
            """Somebody's page reads the backend before it is set, and is answered after."""
            nonlocal num_set
            num_set += 1
            if num_set > 1:
                return sets(*arguments, **fields)
            backend.on_request = hang
            reading = threading.Thread(target=label_studio_api.get, args=[f"/api/ml/?project={project.id}"])
            reading.start()
            assert is_asked.wait(30)
            changed = sets(*arguments, **fields)
            may_answer.set()
            reading.join()
            return changed

        monkeypatch.setattr(client, "update_backend", set_meanwhile)
        assert align(client, settings, project.id, "v1", is_live=False)
        assert num_set == 2
        assert [one.title for one in client.backends(project.id)] == [STORED_TITLE]

    def test_a_project_that_is_not_connected_is_told_how_to(
        self, client: LabelStudioClient, project: Project, settings: Settings
    ) -> None:
        with pytest.raises(LabelStudioError, match=f"run `clapboard connect --project {project.id}`"):
            align(client, settings, project.id, "v1")


class TestInspection:
    def test_a_connected_project_has_no_faults(
        self, client: LabelStudioClient, project: Project, settings: Settings
    ) -> None:
        connect(client, settings, project.id, version_1)
        checks = inspect_connection(client, settings, project.id, "v1")
        assert [check.name for check in checks] == [
            "token",
            "project",
            "backend address",
            "webhook address",
            "predictions shown",
            "backend",
            "webhook",
            "model version",
        ]
        assert faults(checks) == {}

    def test_a_project_that_is_not_connected_is_told_how_to(
        self, client: LabelStudioClient, project: Project, settings: Settings
    ) -> None:
        found = faults(inspect_connection(client, settings, project.id, "v1"))
        assert found.keys() == {"backend", "webhook", "model version"}
        assert all(f"`clapboard connect --project {project.id}`" in message for message in found.values())

    def test_each_fault_has_its_line(
        self, client: LabelStudioClient, project: Project, settings: Settings, label_studio_api: httpx.Client
    ) -> None:
        with RecordingBackend("theirs") as theirs:
            client.add_backend(project.id, url=theirs.url, title="theirs")
            connect(client, settings, project.id, version_1)
            hidden = {"show_collab_predictions": False}
            label_studio_api.patch(f"/api/projects/{project.id}/", json=hidden).raise_for_status()
            ours = next(found for found in client.webhooks(project.id) if found.url == webhook_url(settings))
            label_studio_api.patch(f"/api/webhooks/{ours.id}/", json={"headers": {}}).raise_for_status()
            found = faults(inspect_connection(client, settings, project.id, "v2"))
        assert "switch on «Use predictions to prelabel tasks»" in found["predictions shown"]
        assert f"another backend, {theirs.url}, before ours" in found["backend"]
        assert "lacks the password" in found["webhook"]
        assert "the project shows none, the backend's title is «v1», the backend answers «v1»" in found["model version"]

    def test_a_backend_that_stopped_is_noticed(
        self, client: LabelStudioClient, project: Project, settings: Settings, backend: RecordingBackend
    ) -> None:
        connect(client, settings, project.id, version_1)
        backend.credentials = "jane:changed"
        assert "can't use the backend" in faults(inspect_connection(client, settings, project.id, "v1"))["backend"]

    def test_a_host_name_without_a_dot_is_refused_for_webhooks_with_the_remedy(
        self, client: LabelStudioClient, project: Project, label_studio: LabelStudioServer
    ) -> None:
        settings = settings_for(label_studio.url, label_studio.token, CLAPBOARD_URL="http://backend:9090")
        found = faults(inspect_connection(client, settings, project.id, "v1"))
        assert "such as «backend»: give the backend a name such as backend.clapboard" in found["webhook address"]
        assert "set CLAPBOARD_URL" in found["backend address"]

    def test_a_wrong_token_ends_it_at_once(self, label_studio: LabelStudioServer, project: Project) -> None:
        settings = settings_for(label_studio.url, "0" * 40)
        with LabelStudioClient(settings) as stranger:
            (check,) = inspect_connection(stranger, settings, project.id, "v1")
        assert (check.name, check.ok) == ("token", False)

    def test_an_unknown_project_ends_it(self, client: LabelStudioClient, settings: Settings) -> None:
        token, project = inspect_connection(client, settings, 987654, "v1")
        assert token.ok
        assert (project.name, project.ok) == ("project", False)


class TestAddressRules:
    """Label Studio as it is started without the two flags, or with one of them."""

    def test_networks_of_its_own_are_refused_by_default(self, tmp_path: Path, backend: RecordingBackend) -> None:
        flags = {"ML_BLOCK_LOCAL_IP": "true", "SSRF_PROTECTION_ENABLED": "true"}
        with strict_label_studio(tmp_path, flags) as server:
            settings = settings_for(server.url, server.token, CLAPBOARD_URL=backend.url, **CREDENTIALS)
            with LabelStudioClient(settings) as client:
                project = client.create_project("Strict", CHOICES)
                with pytest.raises(LabelStudioError, match="ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false"):
                    connect(client, settings, project.id, version_1)
                assert client.backends(project.id) == []
                found = faults(inspect_connection(client, settings, project.id, "v1"))
                assert "ML_BLOCK_LOCAL_IP=false" in found["backend address"]
                assert "ML_BLOCK_LOCAL_IP=false" in found["webhook address"]

    def test_a_backend_that_was_kept_without_its_webhook_is_completed(
        self, tmp_path: Path, backend: RecordingBackend
    ) -> None:
        with strict_label_studio(tmp_path, {"SSRF_PROTECTION_ENABLED": "true"}) as server:
            settings = settings_for(server.url, server.token, CLAPBOARD_URL=backend.url, **CREDENTIALS)
            with LabelStudioClient(settings) as client:
                project = client.create_project("Half strict", CHOICES)
                report = connect(client, settings, project.id, version_1)
                assert report.project.model_version == "v1"
                (warning,) = report.warnings
                assert "SSRF_PROTECTION_ENABLED=false" in warning
                assert client.webhooks(project.id) == []
        with (
            LabelStudioServer(tmp_path) as server,
            LabelStudioClient(settings.with_overrides(label_studio_url=server.url)) as client,
        ):
            report = connect(client, settings, project.id, version_1)
            assert report.warnings == ()
            assert len(report.changes) == 1
            assert faults(inspect_connection(client, settings, project.id, "v1")) == {}


def strict_label_studio(data_dir: Path, flags: dict[str, str]) -> LabelStudioServer:
    needs_label_studio()
    return LabelStudioServer(data_dir, environment=flags)
