"""`clapboard ledger`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.schema import annotation_states, label_counts, ledger
from tests.clapboard.cli.conftest import Clapboard, lines
from tests.support.annotation_events import PROJECT, annotation, bulk, clip, said, suggestion

DOG = clip("dog")
CONFIG = """<View><Audio name="audio" value="$audio"/>
<Choices name="clip" toName="audio"><Choice value="dog"/><Choice value="cat"/></Choices></View>"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Three answers in the inbox, not yet in the ledger."""
    store = Store.open(Settings(MODEL_DIR=tmp_path / "state"))
    events = [
        said(annotation(1, DOG, task=1, by=7, lead_time=2.0, created_username="Ann [i]Lee[/i] a@example.org, 7")),
        said(annotation(2, clip("[b]rain[/b]"), task=2, by=8, lead_time=8.5)),
        bulk(annotation(3, DOG, task=3)),
    ]
    for task, (action, body) in enumerate(events, start=1):
        store.inbox.append(action, PROJECT, body, {str(task): suggestion(DOG, version="mini.[v1]")})
    yield store
    store.close()


def test_json_has_all_figures_up_to_the_last_event(clapboard: Clapboard, store: Store) -> None:
    (found,) = lines(clapboard("ledger", "--project", str(PROJECT), "--json"))
    assert found["project"] == PROJECT
    assert found["num_annotations"] == 3
    assert found["overall"]["acceptance"] == 0.5
    assert {version: fate["bulk"] for version, fate in found["by_version"].items()} == {"mini.[v1]": 1}
    assert {user: fate["acceptance"] for user, fate in found["by_annotator"].items()} == {"1": None, "7": 1.0, "8": 0.0}
    assert [(row["label"], row["suggested"], row["accepted"], row["added"]) for row in found["by_class"]] == [
        ("[b]rain[/b]", 0, 0, 1),
        ("dog", 2, 1, 0),
    ]
    assert found["accepted_lead_time"] == {"num_annotations": 1, "median_s": 2.0}
    assert found["corrected_lead_time"]["median_s"] == 8.5


def test_people_get_tables(clapboard: Clapboard, store: Store) -> None:
    done = clapboard("ledger", "-p", str(PROJECT))
    assert done.exit_code == 0, done.exception
    told = ("By class", "[b]rain[/b]", "other", "2026-11-22", "50%", "Ann [i]Lee[/i]", "user 8")
    for text in (*told, "3 annotations. ", "accepted 2.0 s (1), corrected 8.5 s (1), unaided –"):
        assert text in done.stdout
    assert "mini.[v1]" not in done.stdout
    assert "mini.[v1]" in clapboard("ledger", "-p", str(PROJECT), "--by", "version").stdout


def test_what_is_not_learnt_is_told_with_its_tasks_and_stays_with_a_new_name(
    clapboard: Clapboard, store: Store
) -> None:
    store.catalog.put_project(PROJECT, CONFIG, "v1")
    for number, (task, label) in enumerate(((4, "dog"), (4, "cat"), (5, "dog"), (5, "cat"), (6, "dog bark")), start=10):
        store.inbox.append(*_event(said(annotation(number, clip(label), task=task, by=number))), {})
    done = clapboard("ledger", "-p", str(PROJECT))
    assert "for lack of a majority for “clip”: tasks 4, 5. Have one person more" in done.stdout
    assert "the label config has no “dog bark” in “clip”: task 6. If it was renamed" in done.stdout
    assert f"clapboard labels rename --project {PROJECT} 'dog bark' NEW" in done.stdout
    (found,) = lines(clapboard("ledger", "-p", str(PROJECT), "--json"))
    assert found["left_out"]["ties"] == [{"control": "clip", "tasks": [4, 5]}]
    assert {"control": "clip", "label": "dog bark", "tasks": [6]} in found["left_out"]["unknown"]

    done = clapboard("labels", "rename", "-p", str(PROJECT), "dog bark", "dog")
    assert done.stdout == f"“dog bark” of “clip” is “dog” now: 1 task of project {PROJECT} counts again.\n"
    (found,) = lines(clapboard("ledger", "-p", str(PROJECT), "--json"))
    assert "dog bark" not in {one["label"] for one in (*found["left_out"]["unknown"], *found["by_class"])}
    assert found["renames"] == [{"control": "clip", "label": "dog bark", "new_control": "clip", "new_label": "dog"}]


def _event(told: tuple[str, dict[str, object]]) -> tuple[str, int, dict[str, object]]:
    action, body = told
    return action, PROJECT, body


def test_a_project_without_annotations_says_so(clapboard: Clapboard, store: Store) -> None:
    assert "Nobody has annotated anything in project 99 yet." in clapboard("ledger", "-p", "99").stdout


def test_a_replay_says_whether_the_ledger_agrees(clapboard: Clapboard, store: Store) -> None:
    done = clapboard("ledger", "-p", str(PROJECT), "--replay")
    assert (done.exit_code, done.stdout) == (0, "The ledger agrees with the inbox: 3 events, 3 entries.\n")
    with store.database.write() as connection:
        connection.execute(update(ledger).where(ledger.c.inbox_id == 2).values(outcome="accepted"))
    done = clapboard("ledger", "-p", str(PROJECT), "--replay")
    assert (done.exit_code, done.stdout) == (1, "The ledger differs from the inbox in 1 of 3 events: 2.\n")
    done = clapboard("ledger", "-p", str(PROJECT), "--replay", "--json")
    assert done.exit_code == 1
    assert lines(done) == [{"agrees": False, "events": 3, "entries": 3, "differing": [2], "rebuilt": []}]


def test_a_replay_mends_labels_that_differ_from_the_ledger(clapboard: Clapboard, store: Store) -> None:
    store.catalog.put_project(PROJECT, CONFIG, "v1")
    assert clapboard("ledger", "-p", str(PROJECT), "--replay").exit_code == 0
    with store.database.write() as connection:
        connection.execute(update(annotation_states).where(annotation_states.c.annotation == 1).values(stands=False))
        connection.execute(update(label_counts).values(num_tasks=7))
    done = clapboard("ledger", "-p", str(PROJECT), "--replay")
    assert done.exit_code == 1
    sentence = f"The labels kept of project {PROJECT} differed from the ledger in 1 task and 3 counts; they are derived"
    assert sentence in " ".join(done.stdout.split())
    assert clapboard("ledger", "-p", str(PROJECT), "--replay").exit_code == 0


def test_a_project_is_needed(clapboard: Clapboard) -> None:
    assert clapboard("ledger").exit_code == 2
