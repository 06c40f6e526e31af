"""Reconciliation, between a real Label Studio and a real store, with no webhook at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner

from clapboard.cli import sync as command
from clapboard.feedback.entries import Entry, Outcome
from clapboard.label_studio.annotations import AnnotatedTask
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.records import Project
from clapboard.project.sync import OVERLAP_S, Reconciled, reconcile
from clapboard.store import Store
from clapboard.store.predictions import StoredPrediction
from clapboard.store.tasks import KnownTask
from clapboard.untrusted import MAX_DEPTH
from demo.label_studio_server import LabelStudioServer
from tests.support.fixtures_label_studio import CHOICES, RecordingBackend, prediction, settings_for


class Office:
    """A project whose annotations are told to nobody, and the store that has to find out."""

    def __init__(self, store: Store, client: LabelStudioClient, api: httpx.Client, project: int) -> None:
        self.store = store
        self.client = client
        self.api = api
        self.project = project

    def tasks(self, num: int, **with_each: Any) -> list[int]:
        items = [{"data": {"audio": f"/clip{i}.wav"}} | with_each for i in range(num)]
        return self.client.import_tasks(self.project, items)

    def annotate(self, task: int, choice: str = "dog", **fields: Any) -> int:
        body = {"result": result(choice), "lead_time": 2.0} | fields
        answer = self.api.post(f"/api/tasks/{task}/annotations/", json=body)
        return int(answer.raise_for_status().json()["id"])

    def update(self, annotation: int, **fields: Any) -> None:
        self.api.patch(f"/api/annotations/{annotation}/", json=fields).raise_for_status()

    def delete(self, annotation: int) -> None:
        self.api.delete(f"/api/annotations/{annotation}/").raise_for_status()

    def act(self, action: str, tasks: list[int], **fields: Any) -> None:
        """An action of the Data Manager on those tasks."""
        body = {"selectedItems": {"all": False, "included": tasks}, "project": self.project} | fields
        params: dict[str, Any] = {"id": action, "project": self.project}
        self.api.post("/api/dm/actions/", params=params, json=body).raise_for_status()

    def suggest(self, tasks: list[int], choice: str = "dog") -> None:
        """Our suggestion for each of the tasks, in the store and in Label Studio."""
        items = [prediction(task, "v1", choice=choice) for task in tasks]
        stored = [StoredPrediction(self.project, i["task"], "v1", "key", i["score"], i["result"]) for i in items]
        self.store.predictions.put_for_push(stored)
        assert self.client.push_predictions(self.project, items) == len(tasks)
        self.store.predictions.pushed(self.project, tasks, "v1")

    def know(self, tasks: list[int]) -> None:
        """The store has met the tasks."""
        self.store.tasks.put(self.project, [KnownTask(task, "/a.wav", "key", "a", False) for task in tasks])

    def sync(self, changed_since: float | None = None) -> Reconciled:
        return reconcile(self.store, self.client, self.project, changed_since=changed_since)

    def standing(self) -> dict[int, list[Entry]]:
        """What stands in the ledger, by task."""
        found: dict[int, list[Entry]] = {}
        for entry in self.store.ledger.standing(self.project):
            found.setdefault(entry.task, []).append(entry)
        return found

    def labels(self) -> dict[int, list[str]]:
        return {task: [label for entry in said for label in entry.labels] for task, said in self.standing().items()}

    def outcomes(self) -> dict[int, list[str]]:
        return {task: [str(entry.outcome) for entry in said] for task, said in self.standing().items()}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path / 'clapboard.db'}")
    yield opened
    opened.close()


@pytest.fixture
def office(
    store: Store, label_studio_client: LabelStudioClient, label_studio_api: httpx.Client, two_choices: Project
) -> Office:
    return Office(store, label_studio_client, label_studio_api, two_choices.id)


def test_an_annotation_that_cannot_be_kept_is_left_out_alone(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    deep, plain = office.tasks(2)
    nested: Any = "end"
    for _ in range(MAX_DEPTH):
        nested = [nested]
    office.annotate(deep, result=[*result("dog"), result("rain")[0] | {"meta": nested}])
    office.annotate(plain)
    found = office.sync()
    assert (found.num_annotations, found.num_entered, found.num_refused) == (2, 1, 1)
    assert "1 annotation can't be stored" in str(found)
    assert "nested more deeply" in caplog.text
    assert office.labels() == {plain: ["dog"]}


def test_new_changed_and_deleted_annotations_are_entered_once(office: Office) -> None:
    kept, changed, deleted = office.tasks(3)
    office.annotate(kept)
    to_change, to_delete = office.annotate(changed), office.annotate(deleted)
    first = office.sync()
    assert (first.num_tasks, first.num_annotations, first.num_entered, first.num_deleted) == (3, 3, 3, 0)
    assert first.is_complete
    assert office.labels() == {kept: ["dog"], changed: ["dog"], deleted: ["dog"]}
    office.update(to_change, result=result("rain"))
    office.delete(to_delete)
    second = office.sync()
    assert (second.num_annotations, second.num_entered, second.num_deleted) == (2, 1, 1)
    assert office.labels() == {kept: ["dog"], changed: ["rain"]}
    num_events = sum(office.store.inbox.counts().values())
    third = office.sync()
    assert (third.num_annotations, third.num_entered, third.num_deleted) == (2, 0, 0)
    assert sum(office.store.inbox.counts().values()) == num_events


def test_events_have_the_shape_of_the_webhook_s(office: Office) -> None:
    (task,) = office.tasks(1)
    with RecordingBackend("v1") as listener:
        office.client.ensure_webhook(office.project, f"{listener.url}/webhook", {})
        number = office.annotate(task)
        office.update(number, result=result("rain"))
        office.sync()
        office.delete(number)
        updated = listener.wait_for("/webhook", lambda request: request.body["action"] == "ANNOTATION_UPDATED").body
        deleted = listener.wait_for("/webhook", lambda request: request.body["action"] == "ANNOTATIONS_DELETED").body
    office.sync()
    said, withdrawn = office.store.inbox.events(project=office.project)
    assert said.body["action"] == said.action == "ANNOTATION_CREATED"  # for us: we never saw an earlier revision
    assert said.body["annotation"].items() <= updated["annotation"].items()
    assert said.body["task"].items() <= updated["task"].items()
    assert said.body["project"]["id"] == updated["project"]["id"] == said.project
    assert withdrawn.body["annotations"] == deleted["annotations"]
    assert withdrawn.body["action"] == withdrawn.action == deleted["action"]
    assert {said.body["source"], withdrawn.body["source"]} == {"sync"}


def test_the_same_event_through_the_webhook_changes_nothing_before_or_after(office: Office) -> None:
    early, late = office.tasks(2)
    with RecordingBackend("v1") as listener:
        office.client.ensure_webhook(office.project, f"{listener.url}/webhook", {})
        office.annotate(early)
        office.annotate(late)
        bodies = {task: _created(listener, task) for task in (early, late)}
    office.store.append_event("ANNOTATION_CREATED", office.project, bodies[early])  # in the inbox, not in the ledger
    assert office.sync().num_entered == 1
    before = office.store.ledger.standing(office.project)
    office.store.append_event("ANNOTATION_CREATED", office.project, bodies[late])
    office.store.ledger.catch_up()
    assert office.store.ledger.standing(office.project) == before
    assert office.sync().num_entered == 0


def test_each_outcome_is_told_as_the_webhook_would_have_let_us_tell_it(office: Office) -> None:
    accepted, corrected, skipped, bulk, opened_later = tasks = office.tasks(5)
    office.suggest(tasks)
    office.annotate(accepted)
    office.annotate(corrected, "rain")
    office.annotate(skipped, result=[], was_cancelled=True)
    office.act("predictions_to_annotations", [bulk, opened_later], model_version="v1")
    (touched,) = _annotations(office, opened_later)
    office.update(touched, lead_time=4.0)
    assert office.sync().num_entered == 5
    assert office.outcomes() == {
        accepted: [Outcome.ACCEPTED],
        corrected: [Outcome.RELABELLED],
        skipped: [Outcome.SKIPPED],
        bulk: [Outcome.BULK],
        opened_later: [Outcome.ACCEPTED],
    }
    assert office.store.inbox.counts()["ANNOTATIONS_CREATED"] == 1


def test_bulk_is_bulk_also_when_the_prediction_is_gone_or_another_annotation_was_copied(office: Office) -> None:
    accepted, source, copied = tasks = office.tasks(3)
    office.suggest(tasks)
    office.act("predictions_to_annotations", [accepted], model_version="v1")
    office.client.delete_model_version(office.project, "v1")
    office.act("propagate_annotations", [copied], source_annotation_id=office.annotate(source))
    office.sync()
    assert office.outcomes() == {accepted: [Outcome.BULK], source: [Outcome.ACCEPTED], copied: [Outcome.BULK]}


def test_annotations_that_were_imported_with_their_tasks_are_no_bulk(office: Office) -> None:
    exported = {"id": 4711, "result": result("rain"), "ground_truth": False}
    gold, again, timed = (
        office.tasks(1, annotations=[annotation])[0]
        for annotation in ({"result": result("dog")}, exported, exported | {"id": None, "lead_time": 3.0})
    )
    assert office.sync().num_entered == 3
    assert office.outcomes() == {task: [Outcome.ADDED] for task in (gold, again, timed)}
    assert {task: entry.ground_truth for task, (entry,) in office.standing().items()} == {
        gold: True,
        again: False,
        timed: False,
    }


def test_what_the_data_manager_changes_in_silence_is_entered_once_too(office: Office) -> None:
    first, double = office.tasks(2)  # of the same audio
    bulk, *_ = office.tasks(1)
    office.suggest([bulk])
    office.act("predictions_to_annotations", [bulk], model_version="v1")
    office.annotate(first, "rain")
    moved = office.annotate(double)
    office.sync()
    office.api.patch(f"/api/tasks/{double}/", json={"data": {"audio": "/clip0.wav"}}).raise_for_status()
    everything = {"selectedItems": {"all": True, "excluded": []}}
    office.act("rename_labels", [], **everything, old_label_name="dog", new_label_name="hound", control_tag="clip")
    assert office.sync().num_entered == 2
    assert office.labels() == {first: ["rain"], double: ["hound"], bulk: ["hound"]}
    assert office.outcomes()[bulk] == [Outcome.BULK]
    assert office.sync().num_entered == 0
    office.act("remove_duplicates", [first, double])
    assert office.sync().num_entered == 1
    assert office.labels() == {first: ["rain", "hound"], bulk: ["hound"]}
    assert office.sync().num_entered == 0
    office.update(moved, result=result("rain"))
    assert office.sync().num_entered == 1
    assert office.labels() == {first: ["rain", "rain"], bulk: ["hound"]}


def test_an_annotation_without_any_result_is_entered_once_too(office: Office) -> None:
    (task,) = office.tasks(1)
    office.api.post(f"/api/tasks/{task}/annotations/", json={"lead_time": 1.0}).raise_for_status()
    assert office.sync().num_entered == 1
    assert office.sync().num_entered == 0
    assert office.sync(changed_since=0).is_complete is False


def test_a_short_cycle_looks_only_at_what_changed(office: Office) -> None:
    early, late = office.tasks(2)
    office.annotate(early)
    first = office.sync()
    after_all = first.until + OVERLAP_S + 3600
    idle = office.sync(changed_since=after_all)
    assert (idle.num_tasks, idle.num_entered, idle.is_complete) == (0, 0, False)
    assert idle.until >= first.until
    office.annotate(late)
    short = office.sync(changed_since=first.until)
    assert (short.num_entered, short.is_complete) == (1, False)
    assert office.standing().keys() == {early, late}


def test_a_short_cycle_becomes_a_complete_one_where_something_is_gone_or_missing(office: Office) -> None:
    with_annotation, without, other = office.tasks(3)
    number = office.annotate(with_annotation)
    office.know([with_annotation, without, other])
    after_all = office.sync().until + 2 * OVERLAP_S + 3600
    office.delete(number)
    deleted = office.sync(changed_since=after_all)
    assert (deleted.num_deleted, deleted.is_complete) == (1, True)
    office.annotate(other)
    missing = office.sync(changed_since=after_all)  # as if its task had not counted as changed
    assert (missing.num_entered, missing.is_complete) == (1, True)
    office.act("delete_tasks", [without])
    gone = office.sync(changed_since=after_all)
    assert (gone.num_tasks_deleted, gone.num_deleted, gone.is_complete) == (1, 0, False)


def test_deleted_tasks_take_their_annotations_and_predictions_along(office: Office) -> None:
    gone, kept = tasks = office.tasks(2)
    office.suggest(tasks)
    office.know(tasks)
    for task in tasks:
        office.annotate(task)
    office.sync()
    office.act("delete_tasks", [gone])
    found = office.sync()
    assert (found.num_deleted, found.num_tasks_deleted) == (1, 1)
    assert office.standing().keys() == {kept}
    assert office.store.predictions.delivered(office.project, tasks).keys() == {kept}
    assert office.store.tasks.get(office.project, tasks).keys() == {kept}


def test_an_annotation_that_a_page_missed_is_not_taken_for_deleted(office: Office) -> None:
    listed, missed = office.tasks(2)
    office.annotate(listed)
    office.annotate(missed)
    office.sync()

    class Missing(LabelStudioClient):
        """Lists pages in which the task wasn't yet, or was just moved."""

        def annotated_tasks(self, *arguments: Any, **options: Any) -> Iterator[AnnotatedTask]:
            return (task for task in super().annotated_tasks(*arguments, **options) if task.id != missed)

    token = office.api.headers["Authorization"].removeprefix("Token ")
    with Missing(settings_for(office.client.url, token)) as client:
        found = reconcile(office.store, client, office.project)
    assert found.num_deleted == 0
    assert office.standing().keys() == {listed, missed}


def test_an_annotation_that_went_away_while_it_was_read_is_gone_one_cycle_later(office: Office) -> None:
    kept, short_lived = office.tasks(2)
    office.annotate(kept)
    number = office.annotate(short_lived)

    class Slow(LabelStudioClient):
        """Hands on what it has read after somebody deleted it, of which the webhook told."""

        def annotated_tasks(self, *arguments: Any, **options: Any) -> Iterator[AnnotatedTask]:
            read = list(super().annotated_tasks(*arguments, **options))
            office.delete(number)
            deleted = {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": number}]}
            office.store.append_event("ANNOTATIONS_DELETED", office.project, deleted)
            return iter(read)

    token = office.api.headers["Authorization"].removeprefix("Token ")
    with Slow(settings_for(office.client.url, token)) as client:
        until = reconcile(office.store, client, office.project).until
    assert office.sync(changed_since=until).num_deleted == 1
    assert office.standing().keys() == {kept}


def test_an_annotation_that_a_late_withdrawal_hid_stands_again(office: Office) -> None:
    (task,) = office.tasks(1)
    number = office.annotate(task)
    body = {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": number}], "project": {"id": office.project}}
    office.store.append_event("ANNOTATIONS_DELETED", office.project, body)
    assert office.sync().num_entered == 1
    assert office.standing().keys() == {task}
    assert office.sync().num_entered == 0


def test_a_changed_label_config_is_told(office: Office) -> None:
    office.store.catalog.put_project(office.project, office.client.project(office.project).label_config, "v1")
    assert office.sync().label_config_changed is False
    config = CHOICES.replace('<Choice value="rain"/>', '<Choice value="rain"/><Choice value="siren"/>')
    office.api.patch(f"/api/projects/{office.project}/", json={"label_config": config}).raise_for_status()
    assert office.sync().label_config_changed is True


def test_the_command_says_what_was_entered(
    office: Office, label_studio: LabelStudioServer, tmp_path: Path, runner: CliRunner
) -> None:
    office.annotate(office.tasks(1)[0])
    app = typer.Typer()
    app.callback()(lambda: None)
    command.add_commands(app)
    env = {
        "LABEL_STUDIO_URL": label_studio.url,
        "LABEL_STUDIO_API_KEY": label_studio.token,
        "CLAPBOARD_DATABASE_URL": f"sqlite:///{tmp_path / 'clapboard.db'}",
    }
    shown = runner.invoke(app, ["sync", "--project", str(office.project)], env=env)
    assert shown.exit_code == 0, shown.output
    said = "1 annotation on 1 task was read: 1 new or changed and 0 deleted were entered."
    assert shown.stdout == f"Project {office.project}: {said}\n"
    again = json.loads(runner.invoke(app, ["sync", "--project", str(office.project), "--json"], env=env).stdout)
    assert again.items() >= {"project": office.project, "num_annotations": 1, "num_entered": 0}.items()
    assert "nothing was missing" in runner.invoke(app, ["sync", "-p", str(office.project)], env=env).stdout


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


def result(choice: str) -> list[dict[str, Any]]:
    """A person's choice, on the id of the suggestion that `prediction` makes."""
    found: list[dict[str, Any]] = prediction(0, choice=choice)["result"]
    return [{name: value for name, value in item.items() if name != "score"} for item in found]


def _created(listener: RecordingBackend, task: int) -> dict[str, Any]:
    def is_it(request: Any) -> bool:
        return request.body["action"] == "ANNOTATION_CREATED" and request.body["task"]["id"] == task

    return dict(listener.wait_for("/webhook", is_it).body)


def _annotations(office: Office, task: int) -> list[int]:
    return [
        one["id"]
        for found in office.client.annotated_tasks(office.project)
        if found.id == task
        for one in found.annotations
    ]


def test_a_hidden_control_is_no_change_however_often_it_is_read(office: Office) -> None:
    when = 'visibleWhen="choice-selected" whenTagName="clip" whenChoiceValue="dog"'
    hiding = CHOICES.replace("</View>", f'<Choices name="b" toName="audio" {when}><Choice value="x"/></Choices></View>')
    office.api.patch(f"/api/projects/{office.project}/", json={"label_config": hiding}).raise_for_status()
    (task,) = office.tasks(1)
    kept = result("rain")
    kept.append(kept[0] | {"id": "h", "from_name": "b", "value": {"choices": ["x"]}})
    office.annotate(task, result=kept)
    assert office.sync().num_entered == 1
    assert [entry.control for entry in office.standing()[task]] == ["clip"]
    assert office.sync().num_entered == 0
