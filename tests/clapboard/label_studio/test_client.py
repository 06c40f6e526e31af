"""The client of Label Studio's API, against a real Label Studio."""

from __future__ import annotations

import httpx
import pytest

from clapboard.errors import LabelStudioError
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.records import Project
from clapboard.label_studio.validation import PredictionsDropped
from demo.label_studio_server import LabelStudioServer
from tests.support.fixtures_label_studio import CHOICES, RecordingBackend, prediction, settings_for


@pytest.fixture
def client(label_studio_client: LabelStudioClient) -> LabelStudioClient:
    return label_studio_client


@pytest.fixture
def project(two_choices: Project) -> Project:
    return two_choices


@pytest.fixture
def task_ids(client: LabelStudioClient, project: Project) -> list[int]:
    return client.import_tasks(project.id, [{"audio": f"/clip{i}.wav"} for i in range(5)])


class TestToken:
    def test_a_legacy_token_is_proved_by_the_user_it_belongs_to(
        self, client: LabelStudioClient, label_studio: LabelStudioServer
    ) -> None:
        assert client.check_token() == label_studio.email
        assert client.token_kind == "legacy"

    # The SDK reads the answer with a pydantic method that is deprecated.
    @pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated")
    def test_a_personal_token_is_exchanged_and_proved(
        self, label_studio: LabelStudioServer, label_studio_api: httpx.Client
    ) -> None:
        token = label_studio_api.post("/api/token/", json={}).raise_for_status().json()["token"]
        with LabelStudioClient(settings_for(label_studio.url, token)) as client:
            assert client.check_token() == label_studio.email
            assert client.token_kind == "personal"

    def test_a_wrong_token_is_refused_although_health_would_answer(self, label_studio: LabelStudioServer) -> None:
        wrong = "0" * 40
        with (
            LabelStudioClient(settings_for(label_studio.url, wrong)) as client,
            pytest.raises(LabelStudioError, match="refuses the token in LABEL_STUDIO_API_KEY: Invalid token") as error,
        ):
            client.check_token()
        assert wrong not in str(error.value)

    def test_the_version_is_the_release(self, client: LabelStudioClient) -> None:
        assert client.version() == "1.23.2"


class TestProject:
    def test_a_project_tells_what_is_asked_of_it(self, client: LabelStudioClient, project: Project) -> None:
        client.import_tasks(project.id, [{"audio": "/a.wav"}])
        found = client.project(project.id)
        assert (found.title, found.model_version, found.num_tasks) == ("Two choices", "", 1)
        assert found.label_config.split() == CHOICES.split()
        assert found.shows_predictions

    def test_a_project_that_does_not_exist_is_named(self, client: LabelStudioClient) -> None:
        with pytest.raises(LabelStudioError, match="knows no project 987654"):
            client.project(987654)

    def test_a_title_that_is_too_short_is_refused_with_the_reason(self, client: LabelStudioClient) -> None:
        with pytest.raises(LabelStudioError, match="title: Ensure this field has at least 3 characters"):
            client.create_project("ab", CHOICES)

    def test_a_model_version_that_nothing_bears_is_refused(self, client: LabelStudioClient, project: Project) -> None:
        with pytest.raises(LabelStudioError, match=r"model version v9 .*doesn't exist"):
            client.set_model_version(project.id, "v9")


class TestTasks:
    def test_tasks_come_by_ascending_id_over_several_pages(
        self, client: LabelStudioClient, project: Project, task_ids: list[int]
    ) -> None:
        found = list(client.tasks(project.id, page_size=2))
        assert [task.id for task in found] == task_ids == sorted(task_ids)
        assert found[3].data == {"audio": "/clip3.wav"}

    def test_no_task_is_lost_where_earlier_ones_are_deleted_meanwhile(
        self, client: LabelStudioClient, project: Project, task_ids: list[int], label_studio_api: httpx.Client
    ) -> None:
        tasks = client.tasks(project.id, page_size=2)
        first = next(tasks).id
        label_studio_api.delete(f"/api/tasks/{first}/").raise_for_status()
        assert [first, *(task.id for task in tasks)] == task_ids

    def test_listing_never_makes_label_studio_ask_the_backend(
        self, client: LabelStudioClient, project: Project, task_ids: list[int], label_studio_api: httpx.Client
    ) -> None:
        with RecordingBackend("v1") as backend:
            client.add_backend(project.id, url=backend.url, title="v1")
            settings = {"evaluate_predictions_automatically": True}
            label_studio_api.patch(f"/api/projects/{project.id}/", json=settings).raise_for_status()
            assert len(list(client.tasks(project.id))) == len(dict(client.predictions(project.id))) == len(task_ids)
            assert backend.received("/predict") == []

    def test_uploaded_files_become_tasks_in_their_order(
        self, client: LabelStudioClient, project: Project, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        folder = tmp_path_factory.mktemp("clips")
        paths = [folder / f"clip-{i}.wav" for i in range(12)]
        for path in paths:
            path.write_bytes(b"RIFF" + path.name.encode())
        ids = client.import_files(project.id, paths)
        data = {task.id: task.data["audio"] for task in client.tasks(project.id)}
        assert [data[id_].split("/")[-1].split("-", 1)[1] for id_ in ids] == [path.name for path in paths]
        assert data[ids[0]].startswith(f"/data/upload/{project.id}/")


class TestPredictions:
    def test_what_is_pushed_is_stored_once_however_often_it_is_pushed(
        self, client: LabelStudioClient, project: Project, task_ids: list[int]
    ) -> None:
        items = [prediction(task) for task in task_ids]
        assert client.push_predictions(project.id, [*items, items[0]]) == 5
        assert client.push_predictions(project.id, items) == 0
        assert {task: len(ids) for task, ids in client.predictions(project.id)} == dict.fromkeys(task_ids, 1)

    def test_predictions_are_told_by_task_and_version_of_this_project_alone(
        self, client: LabelStudioClient, project: Project, task_ids: list[int]
    ) -> None:
        other = client.create_project("Another", CHOICES)
        (elsewhere,) = client.import_tasks(other.id, [{"audio": "/b.wav"}])
        client.push_predictions(other.id, [prediction(elsewhere)])
        first, second, *_ = task_ids
        client.push_predictions(project.id, [prediction(first, "v1"), prediction(first, "v10")])
        found = dict(client.predictions(project.id, [first, second, elsewhere], "v1"))
        assert {task: len(ids) for task, ids in found.items()} == {first: 1, second: 0}
        assert len(dict(client.predictions(project.id, [first]))[first]) == 2
        assert dict(client.predictions(project.id, [])) == {}
        client.delete_project(other.id)

    def test_bad_items_are_named_and_take_no_neighbour_along(
        self, client: LabelStudioClient, project: Project, task_ids: list[int]
    ) -> None:
        unknown, badly_scored, not_a_number, unversioned, good = 987654321, *task_ids[:4]
        items = [
            prediction(unknown),
            prediction(badly_scored, score=1.5),
            prediction(not_a_number, score=float("nan")),
            prediction(unversioned, model_version=""),
            prediction(good),
            prediction(task_ids[4], choice="cat"),
        ]
        with pytest.raises(PredictionsDropped, match=r"5 predictions .* were not stored") as error:
            client.push_predictions(project.id, items)
        assert error.value.num_created == 1
        assert error.value.dropped.keys() == {unknown, *task_ids} - {good}
        assert error.value.dropped[unknown] == "the task doesn't exist"
        assert "'cat'" in error.value.dropped[task_ids[4]]
        assert [task for task, ids in client.predictions(project.id) if ids] == [good]

    def test_one_of_very_many_tasks_gets_its_prediction_too(self, client: LabelStudioClient, project: Project) -> None:
        ids = client.import_tasks(project.id, [{"audio": f"/clip{i}.wav"} for i in range(1500)])
        assert client.push_predictions(project.id, [prediction(ids[1234])]) == 1
        assert [task for task, stored in client.predictions(project.id) if stored] == [ids[1234]]

    def test_a_prediction_can_be_deleted_twice(
        self, client: LabelStudioClient, project: Project, task_ids: list[int]
    ) -> None:
        task = task_ids[0]
        client.push_predictions(project.id, [prediction(task)])
        (stored,) = dict(client.predictions(project.id, [task]))[task]
        client.delete_predictions([stored, stored])
        assert dict(client.predictions(project.id, [task])) == {task: []}

    def test_deleting_a_version_keeps_the_one_that_the_project_shows(
        self, client: LabelStudioClient, project: Project, task_ids: list[int]
    ) -> None:
        client.push_predictions(project.id, [prediction(task_ids[0], "v1"), prediction(task_ids[0], "v2")])
        with RecordingBackend("v2") as backend:
            client.add_backend(project.id, url=backend.url, title="v2")
            client.set_model_version(project.id, "v2")
            assert client.delete_model_version(project.id, "v1") == 1
        assert client.project(project.id).model_version == "v2"
        assert [len(ids) for _, ids in client.predictions(project.id, [task_ids[0]])] == [1]


class TestBackendsAndWebhooks:
    def test_a_backend_is_added_changed_and_removed(self, client: LabelStudioClient, project: Project) -> None:
        with RecordingBackend("v1", "jane:secret") as backend:
            added = client.add_backend(project.id, url=backend.url, title="v1", user="jane", password="secret")
            assert (added.title, added.model_version, added.is_connected) == ("v1", "v1", True)
            assert (added.auth_user, added.has_password) == ("jane", True)
            backend.model_version = "v2"
            updated = client.update_backend(
                added.id, project.id, url=backend.url, title="v2", user="jane", password="secret"
            )
            assert client.backends(project.id) == [updated]
            assert (updated.id, updated.title, updated.model_version) == (added.id, "v2", "v2")
            client.remove_backend(added.id)
            assert client.backends(project.id) == []

    def test_a_webhook_is_made_repaired_and_kept_single(
        self, client: LabelStudioClient, project: Project, label_studio_api: httpx.Client
    ) -> None:
        url, headers = "http://127.0.0.1:9/webhook", {"Authorization": "Basic abc"}
        assert client.ensure_webhook(project.id, url, headers)
        assert not client.ensure_webhook(project.id, url, headers)
        (webhook,) = client.webhooks(project.id)
        broken = {"is_active": False, "send_payload": False, "headers": {"authorization": "old", "X-Theirs": "kept"}}
        label_studio_api.patch(f"/api/webhooks/{webhook.id}/", json=broken).raise_for_status()
        label_studio_api.post("/api/webhooks/", json={"project": project.id, "url": url}).raise_for_status()
        assert client.ensure_webhook(project.id, url, headers)
        (repaired,) = client.webhooks(project.id)
        assert repaired.id == webhook.id
        assert repaired.sends_everything
        assert repaired.headers == {"Authorization": "Basic abc", "X-Theirs": "kept"}
        client.remove_webhook(webhook.id)
        assert client.webhooks(project.id) == []

    def test_addresses_that_would_be_refused_are_known_without_creating_anything(
        self, client: LabelStudioClient, project: Project
    ) -> None:
        assert client.why_refused("backend", "http://127.0.0.1:9090") == ""
        assert client.why_refused("webhook", "http://localhost:9090/webhook") == ""
        assert client.why_refused("webhook", "http://backend:9090/webhook") == "Enter a valid URL"
        assert "resolve hostname" in client.why_refused("backend", "http://no-such-host.invalid:9090")
        assert client.backends(project.id) == client.webhooks(project.id) == []
