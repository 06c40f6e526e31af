from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.support.waiting import WAIT_S
from workers.window_queue import WindowQueue

PATIENT_S = 60.0


@dataclass(frozen=True)
class Piece:
    name: str
    urgent: bool = False
    is_window: bool = True
    group: object = "encoder"
    batch_size: int = 4


def filled(*pieces: Piece, capacity: int = 100, delay_s: float = 0.0) -> WindowQueue[Piece]:
    queue: WindowQueue[Piece] = WindowQueue(capacity, delay_s)
    for piece in pieces:
        assert queue.put(piece)
    return queue


def names(pieces: list[Piece]) -> str:
    return " ".join(piece.name for piece in pieces)


def test_a_full_batch_waits_for_nobody_and_keeps_its_order() -> None:
    queue = filled(*(Piece(str(number)) for number in range(6)), delay_s=PATIENT_S)
    assert names(queue.take()) == "0 1 2 3"


def test_what_doesnt_fill_a_batch_goes_when_it_has_waited_enough() -> None:
    queue = filled(Piece("early"), delay_s=0.2)
    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        taken = pool.submit(queue.take)
        time.sleep(0.05)
        queue.put(Piece("late"))
        assert names(taken.result()) == "early late"
    assert time.monotonic() - began >= 0.19


def test_the_batch_size_is_that_of_the_moment() -> None:
    """An encoder that ran out of memory asks for smaller ones."""
    queue = filled(*(Piece(str(number), batch_size=2) for number in range(3)), delay_s=PATIENT_S)
    assert names(queue.take()) == "0 1"


def test_ends_pass_with_their_windows_and_take_up_no_room() -> None:
    pieces = [Piece("a"), Piece("a ends", is_window=False), Piece("b"), Piece("c"), Piece("d"), Piece("e")]
    assert names(filled(*pieces).take()) == "a a ends b c d"


def test_a_batch_holds_windows_of_one_encoder() -> None:
    queue = filled(Piece("a1", group="a"), Piece("b1", group="b"), Piece("a2", group="a"))
    assert [names(queue.take()) for _ in range(3)] == ["a1", "b1", "a2"]


def test_urgent_windows_go_first_and_leave_the_others_a_quarter() -> None:
    queue = filled(
        *(Piece(f"b{number}") for number in range(6)), *(Piece(f"u{number}", urgent=True) for number in range(6))
    )
    assert names(queue.take()) == "u0 u1 u2 b0"
    assert names(queue.take()) == "u3 u4 u5 b1"
    assert names(queue.take()) == "b2 b3 b4 b5"


def test_under_urgent_windows_without_end_those_of_another_encoder_have_their_turn() -> None:
    queue = filled(Piece("patient", group="other"), *(Piece(f"u{number}", urgent=True) for number in range(40)))
    batches = [names(queue.take()) for _ in range(5)]
    assert batches.index("patient") == 3


def test_a_full_lane_holds_up_who_puts_into_it_and_nobody_else() -> None:
    queue = filled(Piece("0"), Piece("1"), capacity=2)
    entered = threading.Event()

    def put_third() -> bool:
        entered.set()
        return queue.put(Piece("2"))

    with ThreadPoolExecutor() as pool:
        third = pool.submit(put_third)
        entered.wait()
        assert queue.put(Piece("urgent", urgent=True))
        assert queue.put(Piece("end", is_window=False))
        time.sleep(0.05)
        assert not third.done()
        queue.take()
        assert third.result(timeout=WAIT_S)


@pytest.mark.parametrize("waits", ["put", "take"])
def test_whoever_waits_is_let_go_when_the_queue_is_closed(waits: str) -> None:
    queue = filled(Piece("0"), capacity=1) if waits == "put" else filled()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(queue.put, Piece("1")) if waits == "put" else pool.submit(queue.take)
        time.sleep(0.05)
        queue.close()
        assert not waiting.result(timeout=WAIT_S)
    assert queue.take() == []
    assert not queue.put(Piece("2"))
