"""Examples → the direction to search in, in two dimensions."""

from __future__ import annotations

import numpy as np
import pytest

from clapboard.errors import RequestError
from clapboard.search.query import NOT_LIKE, centred, direction
from clapboard.suggest.scoring import Array


def at(degrees: float) -> Array:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], np.float32)


def degrees(vector: Array) -> float:
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    return float(np.degrees(np.arctan2(vector[1], vector[0])))


def test_examples_are_seen_from_their_average() -> None:
    assert degrees(centred(np.array([3, 5], np.float32), np.array([3, 1], np.float32))) == pytest.approx(90)


def test_an_embedding_at_the_average_is_taken_as_it_is() -> None:
    for average in (at(30), at(30).astype(np.float16).astype(np.float32)):
        assert degrees(centred(at(30), average)) == pytest.approx(30, abs=1e-3)


def test_one_example_is_the_query_and_several_are_their_middle() -> None:
    assert degrees(direction([at(30)])) == pytest.approx(30, abs=1e-4)
    assert degrees(direction([at(0), at(90)])) == pytest.approx(45, abs=1e-4)
    assert degrees(direction([at(0), at(0), at(90)])) == pytest.approx(np.degrees(np.arctan(0.5)), abs=1e-4)


def test_the_query_turns_away_from_what_isnt_wanted_by_its_weight() -> None:
    found = direction([at(0)], [at(90)])
    assert degrees(found) == pytest.approx(-np.degrees(np.arctan(NOT_LIKE)), abs=1e-4)
    # Many that aren't wanted don't outvote the few that are.
    np.testing.assert_allclose(direction([at(0)], [at(90)] * 9), found, atol=1e-6)


def test_a_query_without_direction_is_refused() -> None:
    with pytest.raises(RequestError, match="only what isn't wanted"):
        direction([], [at(0)])
    with pytest.raises(RequestError, match="cancel each other out"):
        direction([at(0), at(180)])
