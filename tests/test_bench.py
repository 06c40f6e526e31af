"""The bench itself: that it runs from end to end, what its file says, and that no row vanishes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import soundfile
from rich.console import Console

from clapboard.audio import windows
from tests.bench import gpu
from tests.bench.clips import COMPRESSED_AND_WAV, Clips
from tests.bench.peers import LaionClap
from tests.bench.rows import Case, Figures, Goal, Row, quantity
from tests.bench.sections import LEFT_OUT, Effort, Outcome, Section, chosen, run_section
from tests.bench.table import show
from tests.bench.timing import medians
from tests.support.programs import REPOSITORY

FASTER = Case("a", "s", "peer 1.0", Goal(ratio_at_least=2))
SMALLER = Case("b", "bytes", "peer 1.0", Goal(ratio_at_most=0.5, ours_at_most=100), "ours ÷ peer")
ALONE = Case("c", "windows/s", goal=Goal(ours_at_least=1000))


def effort(folder: Path, *, quick: bool = True) -> Effort:
    return Effort(folder, folder, quick)


def section(outcomes: Mapping[Case, Outcome], **settings: Any) -> Section:
    return Section((FASTER, SMALLER, ALONE), lambda _: outcomes, **settings)


def reasons(of: Section, folder: Path) -> list[str]:
    return [row.skipped for row in run_section(of, of.cases, effort(folder), "here")]


class TestRows:
    @pytest.mark.parametrize(
        ("case", "figures", "ratio", "reached"),
        [
            (FASTER, Figures(1.0, 2.0), 2.0, True),
            (FASTER, Figures(1.0, 1.9), 1.9, False),
            (SMALLER, Figures(100, 200), 0.5, True),
            (SMALLER, Figures(100, 190), 100 / 190, False),
            (SMALLER, Figures(101, 300), 101 / 300, False),
            (ALONE, Figures(1000), None, True),
            (ALONE, Figures(999), None, False),
        ],
    )
    def test_a_goal_is_reached_when_every_bound_is_kept(
        self, case: Case, figures: Figures, ratio: float | None, reached: bool
    ) -> None:
        row = Row(case, "here", figures)
        assert row.ratio == ratio
        assert row.reached is reached

    def test_a_goal_for_the_ratio_without_a_peer_is_a_mistake(self) -> None:
        with pytest.raises(ValueError, match="needs a peer"):
            _ = Row(FASTER, "here", Figures(1.0)).reached

    def test_a_goal_is_told_with_its_units(self) -> None:
        assert Goal(ratio_at_most=2, ours_at_most=0.1).text("s") == "≤ 2×, ≤ 100 ms"
        assert Goal(ours_at_least=2500).text("clips/s") == "≥ 2,500 clips/s"
        assert Goal(ours_at_most=8e9).text("bytes") == "≤ 8.00 GB"

    def test_quantities_are_told_in_digits_that_can_be_read(self) -> None:
        told = [quantity(value, unit) for value, unit in ((0.0123, "s/clip"), (1.5, "s"), (12.34, "clips/s"))]
        assert told == ["12.3 ms/clip", "1.5 s", "12.3 clips/s"]


class TestSections:
    def test_each_case_gets_its_row(self, tmp_path: Path) -> None:
        outcomes = {FASTER: Figures(1, 2), SMALLER: "no peer", ALONE: Figures(5)}
        found = run_section(section(outcomes), (FASTER, SMALLER, ALONE), effort(tmp_path), "here")
        assert [(row.figures, row.skipped, row.failed) for row in found] == [
            (Figures(1, 2), "", False),
            (None, "no peer", False),
            (Figures(5), "", False),
        ]

    def test_what_cannot_be_measured_says_why(self, tmp_path: Path) -> None:
        assert reasons(section({}, obstacle=lambda: "no GPU"), tmp_path) == ["no GPU"] * 3
        assert reasons(section({}, in_quick=False), tmp_path) == [LEFT_OUT] * 3

    def test_a_section_that_fails_leaves_rows_that_say_so(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fail(_: Effort) -> Mapping[Case, Outcome]:
            raise RuntimeError("out of clips\nand more")

        found = run_section(Section((FASTER, ALONE), fail), (ALONE,), effort(tmp_path), "here")
        assert [(row.case, row.skipped, row.failed) for row in found] == [
            (ALONE, "failed: RuntimeError: out of clips", True)
        ]
        assert "Traceback" in capsys.readouterr().err

    def test_rows_are_chosen_by_name_or_peer(self) -> None:
        sections = [section({}), Section((Case("other", "s"),), lambda _: {})]
        assert [(index is sections[0], cases) for index, cases in chosen(sections, "PEER")] == [
            (True, [FASTER, SMALLER])
        ]
        assert [cases for _, cases in chosen(sections, "")] == [[FASTER, SMALLER, ALONE], [sections[1].cases[0]]]
        assert chosen(sections, "nothing like it") == []


def test_measures_take_turns_and_warm_ups_do_not_count() -> None:
    calls: list[str] = []
    values = iter([100, 200, 3, 30, 1, 10, 2, 20])

    def measure(name: str) -> float:
        calls.append(name)
        return next(values)

    found = medians({name: lambda name=name: measure(name) for name in ("a", "b")}, 3, warm_ups=1)
    assert found == {"a": 2, "b": 20}
    assert calls == ["a", "b"] * 4


def test_every_clip_is_new_and_sounds_like_one_that_was() -> None:
    found = Clips(COMPRESSED_AND_WAV, duration_s=0.2).take(15)
    assert len(set(found)) == 15
    # By our decoder: libsndfile doesn't always learn the length of an Ogg file that has bytes behind its end.
    first, again = (windows.read(io.BytesIO(content), name="clip") for content in (found[0], found[12]))
    assert first.size > 0
    assert first.tolist() == again.tolist()
    assert [soundfile.info(io.BytesIO(content)).subtype for content in found[:3]] == [
        "VORBIS",
        "PCM_16",
        "MPEG_LAYER_III",
    ]


def test_the_table_shows_figures_goals_and_reasons() -> None:
    text = io.StringIO()
    rows = [Row(FASTER, "here", Figures(0.01, 0.03)), Row(ALONE, "here", skipped="no GPU")]
    show(rows, Console(file=text, width=120))
    assert all(part in text.getvalue() for part in ("here", "10 ms", "30 ms", "3.00×", "≥ 2×", "reached", "no GPU"))


def test_laion_clap_that_is_not_installed_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match="make bench"):
        LaionClap(tmp_path)


def test_what_runs_on_a_gpu_runs_on_a_cpu(tiny_clap: Path, tmp_path: Path) -> None:
    quick = Effort(tiny_clap, tmp_path, quick=True)
    found = {**gpu.measure_encoder(quick, "cpu"), **gpu.measure_training(quick, "cpu")}
    assert all(isinstance(outcome, Figures) for outcome in found.values())
    assert set(found) == {gpu.ON_DEVICE, gpu.FROM_HOST, gpu.TRAINING, gpu.TRAINING_MEMORY}


def test_a_quick_run_goes_through_and_writes_every_row(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    command = [sys.executable, "-m", "tests.bench", "--quick", "--output", str(output)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(output.read_text("utf-8"))
    assert len({(row["name"], row["peer_name"]) for row in rows}) == len(rows) > 20
    for row in rows:
        assert set(row) == {
            "name", "ours", "peer", "peer_name", "ratio", "ratio_of", "unit", "goal", "reached", "skipped", "hardware"
        }  # fmt: skip
        assert (row["skipped"] is None) == (row["ours"] is not None)
        assert row["name"].split()[0] in done.stdout
    measured = {row["name"] for row in rows if row["skipped"] is None}
    assert measured >= {"PCM → embedding, batch 8, default", "log-mel, one thread, exact", "cached /predict, 100 tasks"}
    assert any(name.startswith("files (ogg") for name in measured)
    assert {row["skipped"] for row in rows if row["name"].startswith("GPU:")} in ({"not measured: no GPU"}, {None})
