"""Edges of events at jumps in the signal's level."""

from __future__ import annotations

import numpy as np
import pytest

from clapboard.audio.levels import LEVEL_S, NUM_BANDS, levels
from clapboard.suggest.events.event import EventRules
from clapboard.suggest.events.finding import find_events
from clapboard.suggest.events.level_jumps import LevelJumps
from clapboard.suggest.scoring import Array


def sound(*spans: tuple[float, float], duration_s: float = 20.0, db: float = 15.0) -> Array:
    """Levels of noise, and of sounds above it in half of the bands."""
    rows = np.random.default_rng(3).normal(-40, 1, (round(duration_s / LEVEL_S), NUM_BANDS))
    for start_s, end_s in spans:
        rows[round(start_s / LEVEL_S) : round(end_s / LEVEL_S), : NUM_BANDS // 2] += db
    return rows.astype(np.float32)


def test_edges_move_to_where_the_sound_begins_and_ends() -> None:
    edges = LevelJumps(sound((5.25, 8.1)), LEVEL_S)
    assert edges.moved(4.9, 8.5) == pytest.approx((5.25, 8.1), abs=LEVEL_S)
    assert edges.moved(5.7, 7.6) == pytest.approx((5.25, 8.1), abs=LEVEL_S)


def test_edges_stay_where_the_level_tells_nothing() -> None:
    assert LevelJumps(sound(), LEVEL_S).moved(4.9, 8.8) == (4.9, 8.8)
    assert LevelJumps(sound((15.0, 16.0)), LEVEL_S).moved(4.9, 8.8) == (4.9, 8.8)
    assert LevelJumps(sound(duration_s=0.0), LEVEL_S).moved(0.0, 0.3) == (0.0, 0.3)


def test_an_edge_moves_to_its_own_jump_rather_than_to_a_farther_one() -> None:
    edges = LevelJumps(sound((3.0, 5.0), (6.0, 8.0)), LEVEL_S)
    assert edges.moved(5.8, 8.2) == pytest.approx((6.0, 8.0), abs=LEVEL_S)


def test_events_have_the_edges_of_the_signal() -> None:
    probabilities = np.zeros((32, 1), np.float32)
    probabilities[8:13] = 0.9  # 5.0–8.1 s
    rules, levels_ = EventRules.default(1), sound((5.4, 7.75))
    (event,) = find_events(probabilities, 0.625, 20.0, rules, levels=levels_)
    assert (event.start_s, event.end_s) == pytest.approx((5.4, 7.75), abs=LEVEL_S)


def test_levels_are_the_mean_power_of_steps_and_bands() -> None:
    log_mel = np.full((1, 1001, 64), -20.0, np.float32)
    log_mel[0, 10:15, :4] = 10.0
    rows = levels(log_mel)
    assert rows.shape == (1, 200, NUM_BANDS)
    assert rows[0, 2, 0] == pytest.approx(10.0)
    assert rows[0, 2, 1] == pytest.approx(-20.0)
    assert rows[0, 3, 0] == pytest.approx(-20.0)
