"""Rows of tables → tasks and annotations; `tests/e2e/test_event_tables.py` has the same with a real Label Studio."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from clapboard.errors import EventTableError, LabelConfigError, LabelStudioError, LabelStudioUnreachable, RequestError
from clapboard.event_tables.event_row import EventRow
from clapboard.label_studio.records import Project, Task
from clapboard.project import imported_events
from clapboard.project.imported_events import EventImport, ImportOptions, ImportReport, grouped

CONFIG = """<View><Audio name="audio" value="$sound"/>
<Labels name="event" toName="audio"><Label value="dog"/><Label value="rain" alias="r"/></Labels>
<Labels name="also" toName="audio"><Label value="dog"/><Label value="owl"/></Labels>
<Taxonomy name="tax" toName="audio"><Choice value="Animal"><Choice value="Wren"/></Choice></Taxonomy>
<Choices name="place" toName="audio"><Choice value="yard"/><Choice value="wood"/></Choices></View>"""


class Studio:
    """The part of Label Studio that imports use, in memory."""

    def __init__(self, *uris: str) -> None:
        self.data = [{"sound": uri} for uri in uris]
        self.stored: dict[str, dict[str, Any]] = {}
        self.refused: dict[int, LabelStudioError] = {}

    def project(self, number: int) -> Project:
        return Project(number, "Title", CONFIG, "", len(self.data), True)

    def tasks(self, _project: int, *, after: int = 0) -> Iterator[Task]:
        return (Task(number, data) for number, data in enumerate(self.data, 1) if number > after)

    def import_tasks(self, _project: int, data: list[dict[str, Any]]) -> list[int]:
        self.data += data
        return list(range(len(self.data) - len(data) + 1, len(self.data) + 1))

    def users(self) -> dict[int, str]:
        return {1: "me@example.org", 7: "Ann Lee"}

    def annotations(self, task: int) -> list[dict[str, Any]]:
        return [one for one in self.stored.values() if one["task"] == task]

    def create_annotation(self, task: int, result: list[dict[str, Any]], *, unique_id: str, **others: Any) -> bool:
        if task in self.refused:
            raise self.refused[task]
        if unique_id in self.stored:
            return False
        self.stored[unique_id] = {"task": task, "result": result} | others
        return True


def imported(studio: Studio, *rows: EventRow, length_s: float | None = None, **options: Any) -> ImportReport:
    report = ImportReport(3)
    by_recording = grouped(rows, report)
    client: Any = studio
    EventImport(client, 3, ImportOptions(**options), report, lambda _task: length_s).run(by_recording, lambda *_: None)
    return report


def test_recordings_without_a_task_get_one_at_their_address() -> None:
    studio = Studio()
    rows = [EventRow("C:\\x y\\..\\a#1.wav", 0.0, 1.0, "owl", licence="CC0"), EventRow("b.wav", 0.0, 1.0, "owl")]
    for count in (2, 0):
        report = imported(studio, *rows, uri="https://host.example/{path}")
        assert (report.num_tasks_created, report.num_skipped) == (count, 0)
    assert studio.data == [
        {"sound": "https://host.example/C%3A/x%20y/a%231.wav", "licence": "CC0"},
        {"sound": "https://host.example/b.wav"},
    ]
    with pytest.raises(RequestError, match="--uri has no"):
        ImportOptions(uri="s3://bucket/a.wav")


def test_annotators_are_users_where_label_studio_knows_them() -> None:
    studio = Studio("s3://b/a.wav")
    rows = [EventRow("a.wav", 0.0, 1.0, "owl", annotator=name) for name in ("ann lee", "1", "Bob", "")]
    report = imported(studio, *rows, ground_truth=True)
    assert [one["completed_by"] for one in studio.stored.values()] == [7, 1, None, None]
    assert {one["ground_truth"] for one in studio.stored.values()} == {True}
    assert (report.num_annotations, report.num_others) == (4, 1)
    assert str(report) == (
        "4 annotations with 4 regions were stored from 4 rows on 1 recording, and 0 tasks created; 0 were there "
        "already; 1 of people unknown to Label Studio are the token's user's; 0 skipped."
    )


def test_labels_go_to_the_controls_that_have_them() -> None:
    studio = Studio("s3://b/a.wav")
    rows = [
        EventRow("a.wav", 0.0, 1.0, "dog"),
        EventRow("a.wav", 2.0, 9.0, "r", channel=1),
        EventRow("a.wav", 8.0, 9.0, "r"),
        EventRow("a.wav", 0.0, 0.0, "Animal / Wren", whole=True),
        EventRow("a.wav", 0.0, 0.0, "yard", whole=True),
        EventRow("a.wav", 0.0, 0.0, "wood", whole=True),
    ]
    report = imported(studio, *rows, length_s=5.0)
    assert report.skipped == [
        "a.wav: both “event” and “also” have “dog”: say which with --control.",
        "a.wav: “r” from 8 to 9 s is behind the end of the recording, which lasts 5 s: check which file the table is "
        "about.",
        "a.wav: “place” takes one label, and “yard” is there besides “wood”.",
    ]
    (annotation,) = studio.stored.values()
    assert [(item["from_name"], item["value"]) for item in annotation["result"]] == [
        ("event", {"start": 2.0, "end": 5.0, "channel": 1, "labels": ["r"]}),
        ("tax", {"taxonomy": [["Animal", "Wren"]]}),
        ("place", {"choices": ["yard"]}),
    ]
    assert annotation["result"][0]["original_length"] == 5.0
    assert imported(Studio("s3://b/a.wav"), rows[0], control="also").num_regions == 1
    with pytest.raises(
        LabelConfigError, match="has no control “nope” that takes imported labels; there are “event”, “"
    ):
        imported(studio, rows[0], control="nope")


def test_a_task_that_label_studio_refuses_costs_no_other() -> None:
    studio = Studio("s3://b/a.wav", "s3://b/b.wav")
    rows = [EventRow("a.wav", 0.0, 1.0, "owl"), EventRow("b.wav", 0.0, 1.0, "owl")]
    studio.refused = {1: LabelStudioError("Label Studio refused an annotation of task 1.")}
    report = imported(studio, *rows)
    assert (report.num_annotations, report.skipped) == (1, ["Label Studio refused an annotation of task 1."])
    studio.refused = {1: LabelStudioUnreachable("Nothing answers.")}
    with pytest.raises(LabelStudioUnreachable):
        imported(studio, *rows)
    studio.refused = {}
    report = imported(studio, *rows)  # goes on where it was
    assert (report.num_annotations, report.num_present, len(studio.stored)) == (1, 1, 2)


def test_more_rows_than_are_held_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imported_events, "MAX_ROWS", 2)
    with pytest.raises(EventTableError, match="have more than 2 rows: import them in several parts"):
        grouped([EventRow("a.wav", 0.0, 1.0, "owl")] * 3, ImportReport(3))
