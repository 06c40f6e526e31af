"""Who annotates, by the names that Label Studio sends along."""

from __future__ import annotations

from typing import Any

import pytest

from clapboard.feedback.people import display_names, names_in
from tests.support.annotation_events import annotation, bulk, said


@pytest.mark.parametrize(
    ("told", "names"),
    [
        ("Ann Lee ann@example.org, 7", {7: "Ann Lee"}),
        (" ann@example.org, 7", {7: "ann@example.org"}),
        ("Ann Lee, Jr. ann@example.org, 7", {7: "Ann Lee, Jr."}),
        ("A\u202enn x@example.org, 7", {}),  # what turns the letters round isn't shown to anybody
        ("", {}),
        (None, {}),
        (["Ann"], {}),
    ],
)
def test_a_name_is_what_stands_before_the_address(told: Any, names: dict[int, str]) -> None:
    _, body = said(annotation(1, by=7, created_username=told))
    assert names_in(body) == names


def test_each_annotation_of_an_event_counts() -> None:
    those = [annotation(n, by=n, created_username=f"N{n} n@example.org, {n}") for n in (1, 2)]
    assert names_in(bulk(*those)[1]) == {1: "N1", 2: "N2"}


def test_who_has_no_name_or_one_that_others_have_is_told_apart_by_the_number() -> None:
    assert display_names([0, 1, 2, 3, 4], {1: "Ann", 2: "Ann", 3: "Bob"}) == {
        0: "somebody",
        1: "Ann (1)",
        2: "Ann (2)",
        3: "Bob",
        4: "user 4",
    }
