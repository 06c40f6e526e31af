"""Numbers with what they count."""

from __future__ import annotations

import pytest

from clapboard.plurals import counted


@pytest.mark.parametrize(
    ("number", "noun", "expected"),
    [
        (0, "label", "0 labels"),
        (1, "label", "1 label"),
        (1200, "task", "1,200 tasks"),
        (2, "class", "2 classes"),
        (2, "entry", "2 entries"),
        (2, "day", "2 days"),
        (3, "suggested branch", "3 suggested branches"),
    ],
)
def test_one_is_one_and_all_else_are_several(number: int, noun: str, expected: str) -> None:
    assert counted(number, noun) == expected
