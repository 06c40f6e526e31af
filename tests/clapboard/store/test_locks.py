"""A project's lock: one holder at a time, over threads, processes and machines; lost with its holder."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from clapboard.errors import ProjectBusy
from clapboard.project.lock import ProjectLocks
from clapboard.store import Store
from tests.clapboard.store.conftest import Clock
from tests.support.waiting import wait_for

LEASE_S = 0.5

HOLDING = f"""
import sys, time
from clapboard.project.lock import ProjectLocks
from clapboard.store import Store
with ProjectLocks(Store(sys.argv[1]), "another process", {LEASE_S}).hold(7):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def process(url: str) -> Iterator[Callable[[], ProjectLocks]]:
    """The locks of one more process, by the database's clock."""
    stores: list[Store] = []

    def begin() -> ProjectLocks:
        stores.append(Store(url))
        return ProjectLocks(stores[-1], f"process {len(stores)}", LEASE_S)

    yield begin
    for store in stores:
        store.close()


@pytest.fixture
def two(process: Callable[[], ProjectLocks]) -> tuple[ProjectLocks, ProjectLocks]:
    return process(), process()


def test_one_at_a_time_has_a_project_and_another_project_is_another_matter(
    two: tuple[ProjectLocks, ProjectLocks],
) -> None:
    first, second = two
    with first.hold(7):
        with pytest.raises(ProjectBusy, match="Project 7 is being changed by another job"), second.hold(7):
            pass
        with pytest.raises(ProjectBusy), first.hold(7):  # another thread
            pass
        with second.hold(8):
            pass
    with second.hold(7):
        pass


def test_it_is_renewed_while_it_is_held(two: tuple[ProjectLocks, ProjectLocks]) -> None:
    first, second = two
    with first.hold(7):
        time.sleep(3 * LEASE_S)
        with pytest.raises(ProjectBusy), second.hold(7):
            pass
        first.check(7)


def test_who_waits_gets_it_when_it_is_free(two: tuple[ProjectLocks, ProjectLocks]) -> None:
    first, second = two
    began = threading.Event()

    def hold() -> None:
        with first.hold(7):
            began.set()
            time.sleep(0.3)

    thread = threading.Thread(target=hold)
    thread.start()
    began.wait(5)
    told: list[str] = []
    with second.hold(7, wait_s=10, on_wait=told.append):
        assert told == ["Project 7 is being changed by another job: waiting until it is done."]
        assert not thread.is_alive() or thread.join(5) is None
    thread.join()


def test_a_killed_holder_loses_it_when_its_lease_ends(url: str, process: Callable[[], ProjectLocks]) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDING, url], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    locks = process()
    with pytest.raises(ProjectBusy), locks.hold(7):
        pass
    holder.kill()
    holder.communicate()

    def taken() -> bool:
        try:
            with locks.hold(7):
                return True
        except ProjectBusy:
            return False

    wait_for(taken, "nobody gets it after its holder was killed")


def test_one_that_ran_out_is_the_next_ones_and_its_holder_is_told(
    open_store: Callable[[], Store], clock: Clock
) -> None:
    mine, others = open_store(), open_store()
    locks = ProjectLocks(mine, "mine", 1000.0)
    with locks.hold(7):
        clock.advance(1001.0)
        assert others.locks.take(7, "other", 1000.0)
        with pytest.raises(ProjectBusy, match="was taken over by another job"):
            locks.check(7)
    assert others.locks.holder(7) == "other"  # letting go of a lost one takes nobody's away
