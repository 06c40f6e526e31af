from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clapboard.errors import BodyTooLarge, RequestError
from clapboard.json_steps import SteppedReader
from clapboard.untrusted import MAX_VALUES, large_json, read_json, require_few_values, storable_json
from tests.support import hostile

stepped = settings(derandomize=True, deadline=None, database=None, max_examples=60)


class TinySteps(SteppedReader):
    """Reads a few characters at a time, so that short texts show what long ones do."""

    WINDOW = 12


@stepped
@given(value=hostile.values, indent=st.sampled_from([None, 0, 3]))
def test_a_text_read_in_steps_has_the_value_that_python_reads(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    assert repr(TinySteps(text.encode(), int).value()) == repr(json.loads(text))


@stepped
@given(text=st.text('a\\"\x1f\ud83d\ude00\U0001f415\x7f', max_size=60), in_ascii=st.booleans())
def test_a_long_text_is_read_in_steps_too(text: str, in_ascii: bool) -> None:
    content = json.dumps([text, {text: text}], ensure_ascii=in_ascii).encode("utf-8", "surrogatepass")
    assert repr(TinySteps(content, int).value()) == repr(json.loads(content))


@stepped
@given(value=hostile.values, cut=st.integers(1, 40), put=st.sampled_from(["", ",", "]", "}", '"', "1", "x"]))
def test_a_broken_text_is_refused_as_python_refuses_it(value: Any, cut: int, put: str) -> None:
    text = json.dumps([value, 12.5e-3, -7, True])
    text = text[:-cut] + put + text[len(text) - cut + 1 :]
    try:
        expected = repr(json.loads(text))
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011  # of any kind, as Python's are
            TinySteps(text.encode(), int).value()
    else:
        assert repr(TinySteps(text.encode(), int).value()) == expected


@pytest.mark.parametrize(
    "content",
    [
        b"[" + b"[" * 100_000,
        b'{"a":' * 2_000 + b"1" + b"}" * 2_000 + b" " * 70_000,
        b"[1,2" + b" " * 70_000,
        b'["' + b"a" * 70_000,
        b"1" + b"0" * 70_000 + b".",
        b'{"a" 1}' + b" " * 70_000,
    ],
)
def test_large_bodies_that_are_no_json_are_refused_in_a_sentence(content: bytes) -> None:
    with pytest.raises(RequestError, match="not a JSON object"):
        read_json(content)


def test_large_bodies_are_read_and_written_unchanged() -> None:
    body = {
        "tasks": [{"id": n, "data": {"audio": f"https://host.example/\xe4{n}.wav", "s": n / 3}} for n in range(9_000)]
    }
    body |= {"long": "x" * 200_000, "empty": [[], {}], "deep": hostile.nested(300), "n": 10**30}
    content = json.dumps(body, indent=1, ensure_ascii=False).encode()
    assert read_json(content) == body
    assert large_json(body) == json.dumps(body)
    assert storable_json(large_json(body)) == json.dumps(body)
    assert large_json({"a": [float("nan")] * 20_000}) == json.dumps({"a": [None] * 20_000})
    many = "9" * 5_000
    assert read_json(f'{{"a": {many}, "b": "{"x" * 70_000}"}}'.encode())["a"] is None


def test_a_body_of_too_many_values_is_refused_before_it_is_read() -> None:
    with pytest.raises(BodyTooLarge, match=f"more than {MAX_VALUES} values"):
        require_few_values(b"[" + b"[]," * (MAX_VALUES // 2) + b"[]]")
