"""Splits of what is exported."""

from __future__ import annotations

from collections import Counter

import pytest

from clapboard.errors import RequestError
from clapboard.event_tables.event_row import EventRow
from clapboard.project.exported_events import ExportedRecording
from clapboard.project.exported_files import annotator_groups, splits


def recording(task: int, *annotators: str) -> ExportedRecording:
    rows = [EventRow(f"{task}.wav", 0.0, 1.0, "x", annotator=annotator) for annotator in annotators]
    return ExportedRecording(task, "", f"{task}.wav", rows, None)


def test_shares_are_kept_and_groups_stay_together() -> None:
    split_of = splits("train=0.7, validation=0.1,test=0.2", lambda one: str(one.task // 2))
    drawn = {task: split_of(recording(task)) for task in range(4000)}
    assert all(drawn[task] == drawn[task + 1] for task in range(0, 4000, 2))
    counts = Counter(drawn.values())
    assert 0.65 < counts["train"] / 4000 < 0.75
    assert 0.15 < counts["test"] / 4000 < 0.25


@pytest.mark.parametrize(
    "shares", ["", "train", "train=0.5", "train=0.5,train=0.5", "../x=1", "train=1.0.0", "a=2,b=-1"]
)
def test_other_shares_are_refused(shares: str) -> None:
    with pytest.raises(RequestError, match=r"isn't like train=0\.8,test=0\.2"):
        splits(shares, lambda one: one.name)


def test_recordings_with_an_annotator_in_common_are_one_group() -> None:
    recordings = [recording(1, "1; 2"), recording(2, "2"), recording(3, "3"), recording(4, "4", "1"), recording(5)]
    groups = annotator_groups(recordings)
    assert groups[1] == groups[2] == groups[4]
    assert len(set(groups.values())) == 3
