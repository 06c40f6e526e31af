"""README: of a page's length, and its request is answered as it shows. What else it shows is in `docs`' tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo.clips import make_clips
from tests.support.processes import SERVING, Installation

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_it_is_of_a_page_or_two() -> None:
    assert len(README.splitlines()) <= 150


def test_the_request_shown_is_answered_as_shown(tmp_path: Path) -> None:
    section = README.partition("\n## One request\n")[2].partition("\n## ")[0]
    typed, predicted = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    (expected,) = re.findall(r"^```json\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    make_clips(tmp_path / ".demo" / "clips", 11)  # the first synthetic one is there, with or without ESC-10's ten
    with Installation(tmp_path, "mini") as house:
        backend = house.serve("up")
        backend.process.wait_for_log(SERVING)
        environment = house.environment | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

        def run(script: str) -> Any:
            done = subprocess.run(
                ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
            )
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        answer = run(typed.replace("localhost:9090", backend.client.base_url.netloc.decode()))
        (tmp_path / ".demo" / "clips" / "dog_bark-0.flac").rename(tmp_path / "dog.wav")
        (row,) = run(predicted.splitlines()[0])
        assert row["scores"]["dog bark"] == pytest.approx(1, abs=0.01), row
    expected = json.loads(expected)
    for prediction in (*answer["results"], *expected["results"]):
        assert (
            prediction.pop("score") == pytest.approx(prediction["result"][0].pop("score")) == pytest.approx(1, abs=0.01)
        )
    assert answer == expected
