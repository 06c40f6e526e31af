"""A child that dies again and again."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from clapboard.cli.supervised import Supervised
from tests.support.waiting import wait_for

BEGUN = "from pathlib import Path; import os, signal, sys; f = Path(sys.argv[1]).open('a'); f.write('x'); f.close(); "


@pytest.mark.parametrize(
    ("ending", "told"),
    [("sys.exit(1)", "exit code 1"), ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL, perhaps out of memory")],
)
def test_it_is_started_again_each_time_later_and_its_end_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str, told: str
) -> None:
    begun = tmp_path / "begun"
    caplog.set_level(logging.WARNING)
    with Supervised([sys.executable, "-S", "-c", BEGUN + ending, str(begun)], {}, restart_s=0.1) as supervised:
        wait_for(lambda: len(caplog.messages) >= 4, "it isn't started again")
    assert supervised.gave_up_with == 0
    rests = [message.partition("restarted in ")[2] for message in caplog.messages]
    assert rests[:4] == ["0.1 s", "0.2 s", "0.4 s", "0.8 s"]
    assert all(told in message for message in caplog.messages)
