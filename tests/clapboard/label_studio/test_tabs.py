"""Expressions that list tasks in the Data Manager."""

from __future__ import annotations

import random
import re

import pytest

from clapboard.label_studio.tabs import none_of, one_of

SOME = random.Random(7).sample(range(1, 5000), 500)


@pytest.mark.parametrize("ids", [[], [7], [1, 12, 123, 1234], [10, 11, 12, 13], SOME])
def test_exactly_these_numbers_match_or_exactly_all_others(ids: list[int]) -> None:
    wanted, others = re.compile(one_of(ids)), re.compile(none_of(ids))
    assert [number for number in range(1, 5100) if wanted.search(str(number))] == sorted(ids)
    assert [number for number in range(1, 5100) if not others.search(str(number))] == sorted(ids)


def test_numbers_that_follow_each_other_are_a_short_expression() -> None:
    assert one_of(range(1000, 2000)) == "^1[0123456789][0123456789][0123456789]$"
