"""The shell blocks that the pages show, run in this process: each page's in one folder, in their order."""

from __future__ import annotations

import csv
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from typer.testing import CliRunner

from clapboard.audio.windows import SAMPLE_RATE
from clapboard.cli import app
from clapboard.settings import Settings, env_name
from clapboard.store import Store
from tests.docs.pages import BLOCKS, SHELL
from tests.support.labelled_project import add_labels
from training.sounds.synthesis import synthesise

KINDS = ("dog bark", "rain", "siren")
CONFIG = """<View><Audio name="audio" value="$audio"/>
<Choices name="clip" toName="audio"><Choice value="dog"/><Choice value="rain"/></Choices></View>"""
BEFORE = {"docs/train/pretraining.md": ["clapboard data build clips --out pairs --validation-share 0.2"]}
"""What the readers of a page have run before, on another one."""

Run = Callable[[str], None]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four short clips of each kind, in a folder a kind, and a table of them."""
    folder = tmp_path_factory.mktemp("sounds")
    rows = []
    for kind in KINDS:
        for number in range(4):
            path = Path("clips") / kind.replace(" ", "_") / f"{number}.wav"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / path, synthesise(kind, number, 1.0), SAMPLE_RATE)
            rows.append({"path": path, "label": kind, "group": f"{kind}{number}"})
    with (folder / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "group"])
        writer.writeheader()
        writer.writerows(rows)
    shutil.copy(folder / "clips/dog_bark/0.wav", folder / "dog.wav")
    shutil.copy(folder / "clips/dog_bark/0.wav", folder / "yard.wav")
    listed = [f"{row['path']},{row['group']}" for row in rows[:8]]
    (folder / "recordings.csv").write_text("\n".join(["path,group", *listed]), "utf-8")
    events = [f"{row['path']},0.1,0.9,{row['label']}" for row in rows[:8]]
    (folder / "events.csv").write_text("\n".join(["path,start_s,end_s,label", *events]), "utf-8")
    (folder / "label-config.xml").write_text(CONFIG, "utf-8")
    return folder


@pytest.fixture
def run(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a line as it is typed, beside the sounds, with a store in which people labelled project 1."""
    shutil.copytree(sounds, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    chosen = {"MODEL_DIR": str(tmp_path / "state"), "CLAPBOARD_ENGINE": "torch", "CLAPBOARD_DEVICE": "cpu"}
    for field in Settings.model_fields:
        monkeypatch.delenv(env_name(field), raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    store = Store.open(Settings(MODEL_DIR=tmp_path / "state"))
    add_labels(store, 1, {"dog bark": 3, "rain": 2}, label_config=CONFIG)
    store.ledger.catch_up()
    store.close()

    def typed(line: str) -> None:
        program, *words = shlex.split(line)
        assert program == "clapboard", f"say in a comment why {line!r} isn't run, or which test does"
        arguments = [
            path for word in words for path in (map(str, sorted(Path().glob(word))) if "*" in word else [word])
        ]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, (line, done.output, done.exception)

    return typed


@pytest.mark.parametrize("page", sorted({block.page for block in SHELL if not block.mark}))
def test_what_a_page_shows_can_be_typed(run: Run, page: str) -> None:
    for line in BEFORE.get(page, []):
        run(line)
    for block in SHELL:
        if block.page == page and not block.mark:
            for line in block.lines:
                run(line)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=lambda block: block.page)
def test_programs_shown_can_be_run(run: Run, block: object, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block.code, block.page, "exec"), {})  # type: ignore[attr-defined]
    assert "dog bark" in capsys.readouterr().out


def test_a_line_that_fails_would_be_found(run: Run) -> None:
    with pytest.raises(AssertionError, match="data verify nowhere"):
        run("clapboard data verify nowhere")
    with pytest.raises(AssertionError, match="say in a comment why"):
        run("frobnicate")
