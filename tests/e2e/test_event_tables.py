"""Tables of events go into a real Label Studio and come out again, as typed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from clapboard.event_tables.event_row import EventRow
from clapboard.event_tables.formats import Format, read_events, write_events
from clapboard.feedback.entries import Outcome
from clapboard.label_studio.client import LabelStudioClient
from clapboard.store.predictions import StoredPrediction
from demo.label_studio_server import LabelStudioServer
from tests.support.processes import Installation

pytestmark = pytest.mark.e2e

CONFIG = """<View>
  <Audio name="audio" value="$sound"/>
  <Labels name="event" toName="audio"><Label value="dog bark"/><Label value="rain"/></Labels>
  <Choices name="place" toName="audio"><Choice value="yard"/><Choice value="wood"/></Choices>
</View>"""
TABLE = """path,start_s,end_s,label,annotator,licence,source
site/a.wav,0.25,1.5,dog bark,,CC0,field
site/a.wav,2,3,rain,,CC0,field
site/a.wav,,,yard,,CC0,field
my yard (1).wav,0.1,0.2,rain,,CC-BY,phone
my yard (1).wav,0.3,0.3,rain,,CC-BY,phone
my yard (1).wav,0.3,0.4,owl,,CC-BY,phone
gone.wav,0,1,rain,,,
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, label_studio: LabelStudioServer) -> Iterator[Installation]:
    """A state folder, with that Label Studio."""
    folder = tmp_path_factory.mktemp("house")
    settings = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.token}
    with Installation(folder, "mini", **settings) as installation:
        yield installation


def test_what_is_imported_is_there_once_and_an_answer_without_a_suggestion(
    house: Installation, label_studio_client: LabelStudioClient, label_studio_api: httpx.Client, tmp_path: Path
) -> None:
    project = label_studio_client.create_project("Tables", CONFIG).id
    (present,) = label_studio_client.import_tasks(project, [{"sound": "s3://bucket/site/a.wav"}])
    (tmp_path / "audio/2026").mkdir(parents=True)
    soundfile.write(tmp_path / "audio/2026/my yard (1).wav", np.zeros(8000, np.float32), 8000)
    (tmp_path / "events.csv").write_text(TABLE)

    def imported() -> tuple[int, dict[str, Any]]:
        where = ("--upload", str(tmp_path / "audio"), "--project", str(project), "--json")
        done = house.run("import", str(tmp_path / "events.csv"), *where)
        return done.returncode, json.loads(done.stdout)

    code, first = imported()
    assert (code, first["num_rows"], first["num_tasks_created"], first["num_annotations"]) == (1, 7, 1, 2)
    assert (first["num_regions"], first["num_present"], first["num_skipped"]) == (3, 0, 3)
    for reason in ("is a point", "no Labels of the label config has “owl”", "gone.wav: no task of the project has"):
        assert any(reason in sentence for sentence in first["skipped"]), reason
    code, again = imported()
    assert (again["num_annotations"], again["num_tasks_created"], again["num_present"]) == (0, 0, 2)

    annotated = list(label_studio_client.annotated_tasks(project))
    assert [len(task.annotations) for task in annotated] == [1, 1]
    uploaded = next(task for task in annotated if task.id != present)
    assert (uploaded.data["licence"], uploaded.data["source"]) == ("CC-BY", "phone")
    assert uploaded.data["sound"].endswith("my_yard_1.wav")
    (of_present,) = next(task for task in annotated if task.id == present).annotations
    assert [item["value"] for item in of_present["result"]] == [
        {"start": 0.25, "end": 1.5, "channel": 0, "labels": ["dog bark"]},
        {"start": 2.0, "end": 3.0, "channel": 0, "labels": ["rain"]},
        {"choices": ["yard"]},
    ]

    house.run("sync", "--project", str(project))
    standing = house.store.ledger.standing(project)
    assert {(entry.outcome, entry.model_version) for entry in standing} == {(Outcome.ADDED, "")}
    assert len(standing) == 4

    (tmp_path / "events.csv").write_text("path,start_s,end_s,label\na.wav,5,6,rain\n")
    code, changed = imported()
    assert (code, changed["num_annotations"], changed["num_present"]) == (1, 0, 0)
    assert "was imported before, with other events: delete it in Label Studio" in changed["skipped"][0]
    label_studio_client.delete_project(project)


def test_what_annotators_agree_on_comes_out_in_every_format_and_goes_in_again(
    house: Installation, label_studio_client: LabelStudioClient, label_studio_api: httpx.Client, tmp_path: Path
) -> None:
    audio = tmp_path / "my yard.wav"
    soundfile.write(audio, np.zeros((16_000, 2), np.float32), 8000)

    def project_with(table: Path) -> int:
        project = label_studio_client.create_project("Tables", CONFIG).id
        label_studio_client.import_tasks(project, [{"sound": "s3://bucket/a.wav?X-Amz-Signature=secret", "who": "A"}])
        done = house.run("import", str(table), "-p", str(project), "--upload", str(tmp_path), "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        assert house.run("sync", "--project", str(project)).returncode == 0
        return project

    def exported(project: int, name: str, *options: str, code: int = 0) -> Any:
        where = ("--out", str(tmp_path / name), "--project", str(project), "--json")
        done = house.run("export", *where, *options)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    given = [
        EventRow("a.wav", 0.25, 1.5, "dog bark", licence="CC0", source="=field", channel=1),
        EventRow("a.wav", 2.0, 3.0, "rain", licence="CC0", source="=field", channel=0),
        EventRow("a.wav", 0.0, 0.0, "yard", licence="CC0", source="=field", whole=True),
        EventRow("my yard.wav", 0.1, 0.2, "rain", licence="CC-BY", channel=0),
    ]
    write_events(tmp_path / "given.csv", given, Format.CSV)
    project = project_with(tmp_path / "given.csv")
    for task in label_studio_client.tasks(project):
        if "who" in task.data:
            label_studio_client.add_task_data(task, {"licence": "CC0", "source": "=field"})

    told = exported(project, "out.csv", "--annotators", "none")
    assert (told["num_rows"], told["num_recordings"], told["num_skipped"]) == (4, 2, 0)
    expected = [replace(row, recording=row.recording.replace(" ", "_")) for row in given]
    assert list(read_events(tmp_path / "out.csv")) == expected
    assert "secret" not in (tmp_path / "out.csv").read_text()

    exported(project, "raven", "--format", "raven", "--clips-as-events", code=1)  # how long a.wav is isn't known
    tables = {path.name: list(read_events(path)) for path in (tmp_path / "raven").iterdir()}
    assert {name: len(rows) for name, rows in tables.items()} == {
        "a.wav.selections.txt": 2,
        "my_yard.wav.selections.txt": 1,
    }
    assert tables["a.wav.selections.txt"][0].annotator.isdigit()

    told = exported(project, "out.json", "--format", "aoef", code=1)  # there is no such bucket
    assert [sentence.partition(":")[0] for sentence in told["skipped"]] == ["a.wav"]
    recording = json.loads((tmp_path / "out.json").read_text())["data"]["recordings"][0]
    assert (recording["duration"], recording["channels"], recording["samplerate"]) == (2.0, 2, 8000)

    exported(project, "hf", "--format", "hf", "--split", "train=0.5,test=0.5", "--group", "annotator", code=1)
    (copied,) = (tmp_path / "hf").rglob("*.wav")
    assert copied.read_bytes() == audio.read_bytes()
    assert [row.label for row in read_events(tmp_path / "hf")] == ["rain"]

    (tmp_path / "my_yard.wav").write_bytes(audio.read_bytes())
    second = project_with(tmp_path / "out.csv")
    exported(second, "again.csv", "--annotators", "none")
    events = [row for row in read_events(tmp_path / "again.csv") if row.recording == "my_yard.wav"]
    assert events == expected[3:]

    for number in (project, second):
        label_studio_client.delete_project(number)


def test_suggestions_come_out_with_their_scores(
    house: Installation, label_studio_client: LabelStudioClient, tmp_path: Path
) -> None:
    project = label_studio_client.create_project("Suggestions", CONFIG).id
    tasks = label_studio_client.import_tasks(project, [{"sound": f"/{name}/a.wav"} for name in ("x", "y")])
    region = {"start": 1.0, "end": 2.5, "channel": 0, "labels": ["rain"]}
    result = [
        {"id": "r", "from_name": "event", "to_name": "audio", "type": "labels", "value": region, "score": 0.5},
        {"id": "c", "from_name": "place", "to_name": "audio", "type": "choices", "score": 0.75}
        | {"value": {"choices": ["yard"]}},
    ]
    house.store.predictions.put_all([StoredPrediction(project, tasks[0], "v1", "key", 0.5, result)], push=False)
    out = tmp_path / "out.csv"
    done = house.run("export", "-p", str(project), "--what", "suggestions", "--out", str(out))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "has no suggestions of a version that is shown; there are v1." in done.stderr
    done = house.run("export", "-p", str(project), "--what", "suggestions", "--version", "v1", "--out", str(out))
    assert done.stdout.strip().endswith(f"are in {out} (1 file); 1 task had none; 0 skipped.")
    assert list(read_events(out)) == [
        EventRow("x/a.wav", 1.0, 2.5, "rain", 0.5, version="v1", channel=0),
        EventRow("x/a.wav", 0.0, 0.0, "yard", 0.75, version="v1", whole=True),
    ]
    # Heads share a name in Label Studio, which is what a project shows; each row tells its own head.
    headed = "mini-1.head-2.3"
    house.store.predictions.put_all([StoredPrediction(project, tasks[1], headed, "key", 0.5, result)], push=True)
    done = house.run("export", "-p", str(project), "--what", "suggestions", "--version", "mini-1.3", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert [(row.recording, row.version) for row in read_events(out)] == [("y/a.wav", headed)] * 2
    label_studio_client.delete_project(project)
