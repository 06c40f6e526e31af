"""Tables of events go into a real Label Studio and come out again, as typed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from clapboard.feedback.entries import Outcome
from clapboard.label_studio.client import LabelStudioClient
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
