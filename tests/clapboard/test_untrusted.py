"""Values from outside, as they can be kept."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from clapboard.errors import RequestError
from clapboard.untrusted import depth, identifier, is_storable, read_json, rebuilt, storable_json, storable_text
from tests.support.hostile import nested


@pytest.mark.parametrize("value", [0, -1, True, False, 2**63, 1.0, "1", None, [1], math.nan])
def test_only_what_label_studio_may_have_given_is_an_identifier(value: Any) -> None:
    assert identifier(value) is None
    assert [identifier(number) for number in (1, 2**63 - 1)] == [1, 2**63 - 1]


def test_text_stays_as_it_is_but_for_what_no_database_keeps() -> None:
    assert [storable_text(text) for text in ("", "tape 1", "ключ 🐕")] == ["", "tape 1", "ключ 🐕"]
    assert storable_text("a\0\ud800b") == "a\\x00\\ud800b"
    assert [is_storable(text) for text in ("🐕", "\0", "\udfff")] == [True, False, False]
    assert storable_text("\ud800") != storable_text("\ud801")  # two recordings stay two


def test_numbers_that_json_lacks_become_null_however_deep_they_are() -> None:
    value = {"a": [math.nan, {"b": -math.inf, "\ud800": 1e308}], "c": nested(500)}
    assert json.loads(storable_json(value)) == {"a": [None, {"b": None, "\ud800": 1e308}], "c": nested(500)}


def test_a_body_is_read_with_all_that_python_takes_for_json() -> None:
    many = "1" * 5000
    assert read_json(f'{{"a": {many}, "b": 7, "c": "\\ud800"}}'.encode()) == {"a": None, "b": 7, "c": "\ud800"}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b'{"a": 1' + b"1" * 5000]
)
def test_what_is_no_json_is_refused_in_one_sentence(content: bytes) -> None:
    with pytest.raises(RequestError, match="The body is not a JSON object"):
        read_json(content)


def test_levels_are_counted_and_copied_without_end() -> None:
    deep: Any = None
    for _ in range(100_000):
        deep = [deep]
    assert depth(deep) == depth(rebuilt(deep)) == 100_000
    assert (depth(1), depth({}), depth({"a": []}), depth([[1], 2])) == (0, 0, 1, 2)


def test_members_keep_their_order_and_some_are_left_out_or_left_alone() -> None:
    value = {"b": 1, "secret": 2, "data": {"secret": 3, "c": 1}, "a": [{"secret": 4, "z": 1, "y": 1}]}
    copy = rebuilt(value, leaf=lambda item: item + 1, leaves_out="secret".__eq__, keeps_whole="data".__eq__)
    assert json.dumps(copy) == '{"b": 2, "data": {"secret": 3, "c": 1}, "a": [{"z": 2, "y": 2}]}'
