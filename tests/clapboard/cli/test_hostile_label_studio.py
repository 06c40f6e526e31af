"""What a Label Studio may hold or answer, as `prelabel` and `sync` meet it: what is bad costs nothing but itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_label_studio import TOKEN, FakeLabelStudio
from tests.support.hostile import nested
from tests.support.processes import Installation
from tests.support.recordings import data_uri

GOOD = (1, 200)  # the first and the last of those that can be read
NAMELESS: tuple[Any, ...] = (True, None, "7", 7.5, [7], -7, 0, 2**63, 10**400, "\ud800")
AUDIO: tuple[Any, ...] = (
    *(
        "\ud800",
        "\0",
        "",
        " ",
        "data:audio/wav;base64,\0",
        "https://\0host.example/a.wav",
        "ftp://\ud800",
        "x" * 10_000,
    ),
    *(["https://host.example/a.wav"], {"url": 1}, 7, -1.5, 10**400, float("nan"), True, None, nested(600)),
)
DATA: tuple[Any, ...] = (None, [], ["audio"], "audio", 7, {}, nested(600))
RECORDINGS: tuple[Any, ...] = ("\ud800", "\0", ["tape"], {}, None, True, 2**63, 10**400, float("nan"), "x" * 10_000)
ANNOTATIONS: tuple[Any, ...] = (
    *(None, 7, "\ud800", [], {}, nested(600)),
    *({"id": number, "result": [], "updated_at": "2026-01-01T00:00:00Z"} for number in (True, None, 2**63, "\0")),
    *({"id": 900, "result": [], "updated_at": moment} for moment in (None, 7, "\ud800", "9999-99-99", ["2026"])),
    *({"id": 900, "result": said, "updated_at": "2026-01-01T00:00:00Z"} for said in (7, "\0", {"a": 1}, True)),
)


class HostileLabelStudio(FakeLabelStudio):
    """One whose project 7 has tasks as no program of goodwill would have made them."""

    def __init__(self) -> None:
        super().__init__()
        self.add_tasks(7, *({"id": number, "data": {"audio": data_uri(number)}} for number in GOOD))
        bad = [{"audio": audio} for audio in AUDIO] + list(DATA)
        self.refused = range(2, 2 + len(bad))
        self.add_tasks(7, *({"id": number, "data": data} for number, data in zip(self.refused, bad, strict=True)))
        self.named = range(100, 100 + len(RECORDINGS))
        for number, recording in zip(self.named, RECORDINGS, strict=True):
            self.add_tasks(7, {"id": number, "data": {"audio": data_uri(number), "recording": recording}})
        said = {"result": [], "updated_at": "2026-01-01T00:00:00Z", "task": 1, "project": 7, "lead_time": 1.0}
        self.annotations = {number: said | {"id": number, "updated_by": 1, "completed_by": 1} for number in (5, 6)}

    def _task_page(self, query: dict[str, str]) -> dict[str, Any]:
        page = super()._task_page(query)
        if "annotations" in query["include"]:
            for task in page["tasks"]:
                task["annotations"] = [*ANNOTATIONS, *task["annotations"]]
        nameless = [{"id": number, "data": {"audio": data_uri(1)}} for number in NAMELESS]
        page["tasks"] = [*nameless[:5], *page["tasks"], *nameless[5:], None, "\ud800"]
        page["total"] += len(NAMELESS) + 2
        return page


@dataclass
class House:
    """A worker's installation and that Label Studio."""

    installation: Installation
    studio: HostileLabelStudio


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A worker, and a Label Studio full of such tasks, on each database."""
    settings: dict[str, Any] = {}
    if request.param == "postgresql":
        new_url: Callable[[], str] = request.getfixturevalue("new_postgres_url")
        settings["database_url"] = new_url()
    folder: Path = tmp_path_factory.mktemp("house")
    with HostileLabelStudio() as studio:
        settings |= {"label_studio_url": studio.url, "label_studio_api_key": TOKEN}
        with Installation(folder, "mini", **settings) as installation:
            installation.worker()
            yield House(installation, studio)


def test_prelabel_gives_the_good_tasks_their_suggestion_and_each_bad_one_its_sentence(house: House) -> None:
    run, studio = house.installation.run, house.studio
    done = run("prelabel", "--project", "7", "--json")
    assert "Traceback" not in done.stdout + done.stderr + house.installation.logs
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert told["num_refused"] == len(studio.refused)
    by_task = {failure["task"]: failure["error"] for failure in told["failures"]}
    assert by_task.keys() == {*studio.refused, None}
    nameless = [failure["error"] for failure in told["failures"] if failure["task"] is None]
    assert len(nameless) == len(NAMELESS) + 2
    assert "A task has the id True, which isn't a valid number: delete it in Label Studio." in nameless
    assert all(failure["error"].endswith(".") and len(failure["error"]) < 300 for failure in told["failures"])
    suggested = {*GOOD, *studio.named}
    assert {one["task"] for one in studio.stored} == suggested
    assert len(studio.stored) == len(suggested)
    shown = run("prelabel", "--project", "7")
    assert (shown.returncode, "Traceback" in shown.stdout + shown.stderr) == (1, False)
    assert f"{told['num_refused'] + len(nameless)} without a suggestion" in shown.stdout
    assert len(studio.stored) == len(suggested)


def test_sync_enters_what_can_be_read_and_says_what_cannot(house: House) -> None:
    done = house.installation.run("sync", "--project", "7", "--json")
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert (told["num_entered"], told["num_refused"]) == (2, len(ANNOTATIONS))
    assert f"Task 1 has {len(ANNOTATIONS)} annotations that can't be read" in done.stderr
    assert "A task has the id True, which isn't a valid number" in done.stderr
    assert house.installation.store.ledger.revisions(7).keys() == {5, 6}
