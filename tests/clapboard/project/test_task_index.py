"""Which task a recording's name means."""

from __future__ import annotations

import pytest

from clapboard.errors import EventTableError
from clapboard.label_studio.records import Task
from clapboard.project.task_index import TaskIndex, upload_name

LONG = f"{'very long name ' * 12}.wav"
URIS = [
    "/data/upload/3/0a1b2c3d-my_yard_1.wav",
    "s3://bucket/x/a.wav",
    "/data/local-files/?d=y%2Fa.wav",
    f"/data/upload/3/0a1b2c3d-{upload_name(LONG)}",
    "data:audio/wav;base64,b.wav",
    "s3://bucket/twice.wav",
    "s3://bucket/twice.wav",
    7,
]


@pytest.fixture
def index() -> TaskIndex:
    return TaskIndex([Task(number, {"audio": uri}) for number, uri in enumerate(URIS, 1)], "audio")


@pytest.mark.parametrize(
    ("recording", "task"),
    [
        ("my yard (1).wav", 1),
        ("my_yard_1.wav", 1),
        ("C:\\x\\a.wav", 2),
        ("y/a.wav", 3),
        (LONG, 4),
        ("b.wav", None),
        ("../../etc/passwd", None),
    ],
)
def test_a_task_is_found_by_its_recording(index: TaskIndex, recording: str, task: int | None) -> None:
    assert index.find(recording) == task


def test_what_several_tasks_have_is_refused(index: TaskIndex) -> None:
    with pytest.raises(EventTableError, match=r"“twice\.wav” is the recording of 2 tasks, such as 6 and 7"):
        index.find("twice.wav")
    with pytest.raises(EventTableError, match="may be any of 2 recordings"):
        index.find("a.wav")


def test_names_to_upload_under_stay_as_they_are_in_label_studio() -> None:
    name = upload_name(LONG)
    assert len(f"upload/1234567/0a1b2c3d-{name}") <= 100
    assert upload_name(name) == name
    assert name.endswith(".wav")
