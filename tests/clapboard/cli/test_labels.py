"""`clapboard labels`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clapboard.errors import LabelConfigError, NotFoundError
from clapboard.labels.label_config import parse_label_config
from clapboard.project.agreement import agreement
from clapboard.settings import Settings
from clapboard.store import Store
from tests.clapboard.cli.conftest import Clapboard, lines
from tests.support.annotation_events import PROJECT, annotation, clip, said

CONFIG = """<View><Audio name="audio" value="$audio"/>
<Choices name="sound" toName="audio"><Choice value="dog"/><Choice value="rain"/></Choices>
<Choices name="also" toName="audio" choice="multiple"><Choice value="dog"/><Choice value="far"/></Choices></View>"""
SAID = (("sound", "dog bark"), ("sound", "dog bark"), ("sound", "rain"), ("noise", "rain"), ("also", "distant"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """People said things that are called otherwise by now."""
    store = Store.open(Settings(MODEL_DIR=tmp_path / "state"))
    store.catalog.put_project(PROJECT, CONFIG, "v1")
    store.catalog.set_connected(PROJECT)
    for number, (control, label) in enumerate(SAID, start=1):
        action, body = said(annotation(number, clip(label, control=control), task=number))
        store.inbox.append(action, PROJECT, body, {})
    yield store
    store.close()


def learnt(store: Store) -> dict[int, dict[str, tuple[str, ...]]]:
    found = agreement(store, PROJECT, parse_label_config(CONFIG)).labels
    return {task: {control: one.labels for control, one in labels.items()} for task, labels in found.items()}


def test_what_was_renamed_is_learnt_from_again(clapboard: Clapboard, store: Store) -> None:
    (told,) = lines(clapboard("labels", "list", "-p", str(PROJECT), "--json"))
    assert [(one["control"], one["label"], one["tasks"]) for one in told["unknown"]] == [
        ("also", "distant", [5]),
        ("noise", "rain", [4]),
        ("sound", "dog bark", [1, 2]),
    ]
    assert learnt(store) == {3: {"sound": ("rain",)}}
    for arguments in (
        ("rename", "dog bark", "dog"),
        ("rename", "distant", "far"),
        ("rename-control", "noise", "sound"),
    ):
        done = clapboard("labels", arguments[0], "-p", str(PROJECT), *arguments[1:])
        assert done.exit_code == 0, done.exception
    assert learnt(store) == {
        1: {"sound": ("dog",)},
        2: {"sound": ("dog",)},
        3: {"sound": ("rain",)},
        4: {"sound": ("rain",)},
        5: {"also": ("far",)},
    }
    assert [job.kind for job in store.jobs.newest()] == ["learn"]
    shown = clapboard("labels", "list", "-p", str(PROJECT)).stdout
    assert "“dog bark” of “sound” is “dog” now.\n" in shown
    assert "The control “noise” is “sound” now.\n" in shown
    assert "not in the label config" not in shown


@pytest.mark.parametrize(
    ("arguments", "error", "why"),
    [
        (
            ("rename", "dog bark", "hound"),
            NotFoundError,
            "has no label “hound”: it has “sound”: dog, rain; “also”: dog",
        ),
        (("rename", "rain", "dog"), LabelConfigError, "“rain” is still a label of “sound”"),
        (
            ("rename", "dgo bark", "dog"),
            NotFoundError,
            "Project 6 has no annotations of “dgo bark”: annotated are distant, dog",
        ),
        (("rename", "dog bark", "dog", "--control", "other"), NotFoundError, "has no label “dog” in “other”"),
        (("rename-control", "noise", "wind"), NotFoundError, "has no control “wind”: it has sound, also"),
        (("rename-control", "also", "sound"), LabelConfigError, "“also” is still a control"),
        (("rename-control", "nois", "sound"), NotFoundError, "Project 6 has no annotations in a control “nois”"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(
    clapboard: Clapboard, store: Store, arguments: tuple[str, ...], error: type[Exception], why: str
) -> None:
    done = clapboard("labels", arguments[0], "-p", str(PROJECT), *arguments[1:])
    assert isinstance(done.exception, error)
    assert why in str(done.exception)
    assert store.renames.of_project(PROJECT) == []


def test_a_name_that_comes_back_is_itself_again(clapboard: Clapboard, store: Store) -> None:
    clapboard("labels", "rename", "-p", str(PROJECT), "dog bark", "dog")
    store.catalog.put_project(PROJECT, CONFIG.replace('value="dog"', 'value="dog bark"', 1), "v1")
    assert learnt(store)[1] == {"sound": ("dog",)}
    back = parse_label_config(CONFIG.replace('value="dog"', 'value="dog bark"', 1))
    assert agreement(store, PROJECT, back).labels[1]["sound"].labels == ("dog bark",)
