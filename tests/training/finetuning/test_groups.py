from __future__ import annotations

from training.finetuning.groups import groups_of


def test_clips_of_one_recording_or_one_sound_are_one_group() -> None:
    clips = [("tape 1", "a"), ("tape 1", "b"), ("tape 2", "c"), ("tape 3", "b"), ("tape 4", "d"), ("tape 4", "e")]
    first, second, alone, same_sound, *others = groups_of(clips)
    assert first == second == same_sound != alone
    assert others[0] == others[1]
    assert len({first, alone, others[0]}) == 3


def test_what_hangs_together_in_many_steps_is_one_group() -> None:
    chain = [(f"tape {number // 2}", f"sound {(number + 1) // 2}") for number in range(2_000)]
    assert len(set(groups_of(chain))) == 1
    assert len(set(groups_of(chain[::-1]))) == 1


def test_a_recording_that_is_called_like_a_sound_is_no_sound() -> None:
    assert len(set(groups_of([("a", "b"), ("b", "c")]))) == 2
    assert groups_of([]) == []
