"""A Label Studio project as a source: what counts of its annotations, and what must never be trained on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clapboard.errors import SourceError, TrainingError
from clapboard.feedback.renames import Rename
from clapboard.label_studio.client import LabelStudioClient
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.tasks import KnownTask
from tests.support.annotation_events import annotation, clip, region
from tests.support.audio_server import AudioServer, wav
from tests.support.fake_label_studio import TOKEN, FakeLabelStudio
from tests.support.fixtures_label_studio import settings_for
from training.corpus.build import Plan, build
from training.corpus.filters import Reason, Rules
from training.corpus.pairs import Pair
from training.corpus.projects import LabelStudioAccess, project_pairs
from training.corpus.sources import open_source

PROJECT = 6
CONFIG = """
<View>
  <Audio name="audio" value="$audio"/>
  <TextArea name="caption" toName="audio"/>
  <TextArea name="remark" toName="audio" perRegion="true"/>
  <Choices name="clip" toName="audio" choice="multiple"><Choice value="dog"/><Choice value="rain"/></Choices>
  <Labels name="ev" toName="audio"><Label value="bark"/></Labels>
</View>
"""


def caption(*texts: str, control: str = "caption", **place: Any) -> dict[str, Any]:
    value = {"text": list(texts)} | place
    return {"id": "t1", "from_name": control, "to_name": "audio", "type": "textarea", "value": value}


class Office:
    """A project, its audio, and the store that knows its tasks."""

    def __init__(self, fake: FakeLabelStudio, audio: AudioServer, access: LabelStudioAccess) -> None:
        self.fake = fake
        self.audio = audio
        self.access = access

    def task(self, number: int, *annotations: dict[str, Any], path: str | None = None, **data: Any) -> None:
        task = self.audio.task(number, path)
        self.fake.add_tasks(PROJECT, task | {"data": task["data"] | data})
        self.fake.annotations |= {one["id"]: one for one in annotations}

    def pairs(self) -> dict[str, Pair]:
        return {pair.name: pair for pair in project_pairs(self.access, PROJECT)}


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with FakeLabelStudio() as fake, AudioServer() as audio:
        fake.label_config = CONFIG
        fake.tasks[PROJECT] = {}
        settings = settings_for(fake.url, TOKEN, MODEL_DIR=tmp_path / "state", CLAPBOARD_ALLOW_PRIVATE_URLS=True)
        store = Store.open(settings)
        with LabelStudioClient(settings) as client:
            yield Office(fake, audio, LabelStudioAccess(settings, store, client, AudioSources(settings)))
        store.close()


def test_captions_and_agreed_choices_of_each_annotated_task(office: Office) -> None:
    office.task(
        1,
        annotation(1, caption("a dog  barks", "twice"), clip("dog"), region("r", 0, 1, "bark"), task=1, by=7),
        annotation(2, caption("barking"), clip("dog", "rain"), task=1, by=8),
        annotation(3, clip("dog"), task=1, by=9),
        recording="garden",
    )
    office.task(2)  # nobody has said anything
    of_a_second = [caption("a remark", control=control, start=0.0, end=1.0) for control in ("remark", "caption")]
    office.task(3, annotation(4, *of_a_second, task=3))
    found = office.pairs()
    assert list(found) == ["task 1", "task 3"]
    assert found["task 1"].captions == ("a dog barks", "twice", "barking")
    assert found["task 1"].tags == ("dog",)
    assert found["task 1"].group == f"{PROJECT}: garden"
    sound = found["task 1"].audio
    assert callable(sound)
    assert sound().path.is_file()
    assert (found["task 3"].captions, found["task 3"].tags) == ((), ())


def test_a_label_that_was_renamed_is_a_tag_under_its_new_name(office: Office) -> None:
    office.task(1, annotation(1, clip("dog bark"), task=1))
    assert office.pairs()["task 1"].tags == ()
    office.access.store.renames.put(PROJECT, Rename("clip", "dog bark", "clip", "dog"))
    assert office.pairs()["task 1"].tags == ("dog",)


def test_gold_counts_alone_and_the_latest_of_each_person(office: Office) -> None:
    office.task(
        1,
        annotation(1, caption("gold"), task=1, by=1, ground_truth=True),
        annotation(2, caption("other"), task=1, by=2),
    )
    office.task(
        2,
        annotation(3, caption("before"), task=2, by=1, second=1),
        annotation(4, caption("after"), task=2, by=1, second=2),
    )
    office.task(
        3, annotation(5, caption("x"), task=3, second=1), annotation(6, task=3, second=2, was_cancelled=True, by=1)
    )
    assert {name: pair.captions for name, pair in office.pairs().items()} == {
        "task 1": ("gold",),
        "task 2": ("after",),
        "task 3": (),
    }


def test_what_nobody_listened_to_is_left_out(office: Office) -> None:
    by_nobody = {"updated_by": None, "lead_time": None}
    office.task(1, annotation(1, clip("dog"), task=1, **by_nobody))
    office.task(2, annotation(2, clip("dog"), task=2, **by_nobody), annotation(3, clip("rain"), task=2, by=2))
    found = office.pairs()
    assert found["task 1"].left_out == Reason.BULK
    assert (found["task 2"].left_out, found["task 2"].tags) == ("", ("rain",))


def test_tasks_that_are_held_out_are_left_out_with_their_sound(office: Office, tmp_path: Path) -> None:
    office.task(1, annotation(1, caption("a dog barks"), task=1))
    office.task(2, annotation(2, caption("rain falls"), task=2))
    office.task(3, annotation(3, caption("a dog barks"), task=3), path="1/same-sound.wav")
    office.access.store.tasks.put(PROJECT, [KnownTask(1, "", "", "", True), KnownTask(2, "", "", "", False)])
    assert {name: pair.left_out for name, pair in office.pairs().items()} == {
        "task 1": Reason.HELD_OUT,
        "task 2": "",
        "task 3": "",
    }
    source = open_source(f"project:{PROJECT}", lambda: office.access)
    (manifest,) = build([source], tmp_path / "set", Plan(Rules(languages=())))
    assert (manifest.samples, manifest.dropped) == (1, {"set_aside": 2})


def test_a_sound_that_is_held_out_is_left_out_before_anybody_has_labelled_it(office: Office, tmp_path: Path) -> None:
    office.task(1)
    office.task(2, annotation(1, caption("rain falls"), task=2))
    office.task(3)
    office.access.store.tasks.put(PROJECT, [KnownTask(1, "", "", "", True)])
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies/a.wav").write_bytes(wav(1))
    given = (str(tmp_path / "copies"), f"project:{PROJECT}")
    sources = [open_source(one, lambda: office.access) for one in given]
    (manifest,) = build(sources, tmp_path / "set", Plan(Rules(languages=())))
    assert [source.pairs for source in manifest.sources] == [1, 2]
    assert (manifest.samples, manifest.dropped) == (1, {"set_aside": 2})


def test_where_nothing_can_be_held_back_it_is_said(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    office.task(1, annotation(1, caption("a dog"), task=1))
    office.access.store.catalog.put_project(PROJECT, CONFIG, "")
    office.pairs()
    assert "Project 6 isn't connected here, so none of its new tasks are held out of training" in caplog.text
    caplog.clear()
    office.access.store.catalog.set_connected(PROJECT, test_share=0.5)
    office.pairs()
    assert caplog.text == ""


def test_a_connected_projects_new_tasks_are_held_out_as_its_test_share_says(office: Office) -> None:
    for number in range(1, 41):
        office.task(number, annotation(number, caption("a dog"), task=number))
    office.access.store.catalog.put_project(PROJECT, CONFIG, "")
    office.access.store.catalog.set_connected(PROJECT, test_share=0.5)
    num_aside = sum(pair.left_out == Reason.HELD_OUT for pair in office.pairs().values())
    assert 5 < num_aside < 35


def test_a_task_whose_audio_can_not_be_had_takes_no_other_along(office: Office, tmp_path: Path) -> None:
    office.task(1, annotation(1, caption("a dog barks"), task=1), path="gone.wav")
    office.task(2, annotation(2, caption("rain falls"), task=2), path="corrupt/a.wav")
    office.task(3, annotation(3, caption("wind howls"), task=3))
    office.fake.tasks[PROJECT][4] = {}
    office.fake.annotations[4] = annotation(4, caption("no address"), task=4)
    (manifest,) = build(
        [open_source(f"project:{PROJECT}", lambda: office.access)], tmp_path / "set", Plan(Rules(languages=()))
    )
    assert (manifest.samples, manifest.dropped) == (1, {"unreadable": 3})
    errors = {one.name: one.error for one in manifest.unreadable}
    assert list(errors) == [f"project:{PROJECT}: task {number}" for number in (1, 2, 4)]
    assert "doesn't exist (HTTP 404)" in errors[f"project:{PROJECT}: task 1"]
    assert "The task has no “audio” in its data" in errors[f"project:{PROJECT}: task 4"]


def test_addresses_that_are_not_allowed_are_not_fetched(office: Office) -> None:
    office.task(1, annotation(1, caption("a dog barks"), task=1))
    settings = office.access.settings.with_overrides(allow_private_urls=False)
    access = LabelStudioAccess(settings, office.access.store, office.access.client, AudioSources(settings))
    (pair,) = project_pairs(access, PROJECT)
    assert callable(pair.audio)
    with pytest.raises(SourceError, match="loopback"):
        pair.audio()


def test_a_project_that_describes_no_whole_clips_says_so(office: Office) -> None:
    office.fake.label_config = """<View><Audio name="audio" value="$audio"/>
      <Labels name="ev" toName="audio"><Label value="bark"/></Labels></View>"""
    with pytest.raises(TrainingError, match="Project 6 has neither a TextArea nor Choices for whole clips: add one"):
        office.pairs()
