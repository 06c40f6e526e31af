"""`clapboard search` with the embedded model and sounds that it knows."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rich.console import Console
from typer.testing import Result

from clapboard.audio.windows import SAMPLE_RATE
from clapboard.cli.search import places_table
from clapboard.errors import AudioError, LabelConfigError, ModelError, NotFoundError, NoWorkerError, RequestError
from clapboard.model.clap import ClapEncoder
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.embeddings import Recording
from clapboard.store.tasks import KnownTask
from tests.clapboard.cli.conftest import Clapboard, document
from tests.support.fake_label_studio import CHOICES
from tests.support.processes import Installation
from training.sounds.synthesis import synthesise

PROJECT = 7
KINDS = ("rain", "siren", "dog bark", "dog bark")  # of tasks 1 to 4
LABEL_STUDIO = "http://ls.example:8080"
ASKED = ("dog bark", "--like", "bark.wav:1-4.5", "--task", "3", "--not-like", "task:1")
SECRET = "X-Signature=s3cr3t"


@pytest.fixture(scope="module")
def encoder() -> ClapEncoder:
    return ClapEncoder.load("mini", device="cpu", engine="torch")


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Store]:
    """A project that introduced itself, and a worker that announced its encoder; nothing is embedded."""
    store = Store.open(Settings(MODEL_DIR=tmp_path / "state"))
    store.catalog.put_project(PROJECT, CHOICES, "v1")
    yield store
    store.close()


@pytest.fixture
def store(tmp_path: Path, empty: Store, encoder: ClapEncoder) -> Store:
    embed_clips(empty, encoder, tmp_path)
    return empty


def embed_clips(empty: Store, encoder: ClapEncoder, tmp_path: Path) -> None:
    """Fills the project as a worker would."""
    named = encoder.identity
    empty.catalog.announce_encoder(Encoder("mini", named.version, named.dtype, named.dim, named.logit_scale))
    for task, kind in enumerate(KINDS, 1):
        soundfile.write(tmp_path / "clip.wav", synthesise(kind, 2_100_000_000 + task, 5.0), SAMPLE_RATE)
        uri, key = f"https://host.example/[{task}].wav?{SECRET}", f"key-{task}"
        empty.tasks.put(PROJECT, [KnownTask(task, uri, key, key, False)])
        empty.embeddings.put_recording(key, Recording(f"{task:064x}", 1, 5.0))
        vectors = encoder.embed_file(tmp_path / "clip.wav")
        empty.embeddings.put(f"{task:064x}", named.version, named.dtype, 0, vectors)


@pytest.fixture
def barking(tmp_path: Path) -> str:
    """A file with a second of silence and five of barking."""
    bark = synthesise("dog bark", 2_100_000_099, 5.0)
    soundfile.write(tmp_path / "bark: 1.wav", np.concatenate([np.zeros(SAMPLE_RATE, np.float32), bark]), SAMPLE_RATE)
    return str(tmp_path / "bark: 1.wav")


def matches_in(done: Result) -> list[dict[str, Any]]:
    """What was found, in the form of POST /search."""
    return list(document(done)["matches"])


@pytest.mark.usefixtures("store")
def test_a_text_finds_the_clips_that_sound_like_it(clapboard: Clapboard) -> None:
    done = clapboard("search", "--project", "7", "dog bark", "--json", model="mini", label_studio_url=LABEL_STUDIO)
    found = matches_in(done)
    assert {one["task"] for one in found[:2]} == {3, 4}
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
    assert found[1]["score"] > 0 > found[2]["score"]
    assert list(found[0]) == ["task", "start_s", "end_s", "best_s", "score", "audio", "url"]
    assert (found[0]["start_s"], found[0]["end_s"], found[0]["best_s"]) == (0.0, 5.0, 0.0)
    assert found[0]["audio"] == f"https://host.example/[{found[0]['task']}].wav"
    assert found[0]["url"] == f"{LABEL_STUDIO}/projects/7/data?task={found[0]['task']}"
    (rain,) = matches_in(clapboard("search", "--project", "7", "rain", "--top", "1", "--json", model="mini"))
    assert rain["task"] == 1


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("asked", [["--task", "3"], ["--like", "task:3"]])
def test_a_task_finds_the_others_that_sound_like_it(clapboard: Clapboard, asked: list[str]) -> None:
    found = matches_in(clapboard("search", "--project", "7", *asked, "--json", model="mini"))
    assert found[0]["task"] == 4
    assert len(found) == 3
    assert found[0]["score"] > found[1]["score"] + 0.1


@pytest.mark.usefixtures("store")
def test_a_piece_of_a_file_finds_what_sounds_like_it(clapboard: Clapboard, barking: str) -> None:
    found = matches_in(clapboard("search", "-p", "7", "--like", f"{barking}:1-0:06", "--json", model="mini"))
    assert {one["task"] for one in found[:2]} == {3, 4}
    unlike = matches_in(clapboard("search", "-p", "7", "rain", "siren", "--not-like", barking, "--json", model="mini"))
    assert {one["task"] for one in unlike[:2]} == {1, 2}
    assert unlike[1]["score"] > 0 > unlike[2]["score"]


@pytest.mark.usefixtures("store")
def test_texts_and_sounds_work_together(clapboard: Clapboard, barking: str) -> None:
    both = matches_in(clapboard("search", "-p", "7", "siren", "--like", f"{barking}:1-6", "--json", model="mini"))
    assert [one["task"] for one in both][-1] == 1
    without = ["--like", f"{barking}:1-6", "--not-like", "task:3"]
    without_three = matches_in(clapboard("search", "-p", "7", "siren", *without, "--json", model="mini"))
    assert {one["task"] for one in without_three} == {1, 2, 4}


@pytest.mark.usefixtures("store")
def test_people_get_a_table_without_secrets(clapboard: Clapboard) -> None:
    done = clapboard("search", "--project", "7", "siren", model="mini", label_studio_url=LABEL_STUDIO)
    first = next(line for line in done.stdout.splitlines() if "host.example" in line)
    assert first.replace("│", " ").split()[:7] == ["2", "0.0", "s", "5.0", "s", "0.0", "s"]
    assert "https://host.example/[2].wav" in first
    assert f"{LABEL_STUDIO}/projects/7/data?task=2" in first
    assert SECRET not in done.stdout


def test_in_a_terminal_a_tasks_number_is_a_link() -> None:
    url = f"{LABEL_STUDIO}/projects/7/data?task=2"
    line = {"task": 2, "start_s": 0.0, "end_s": 20.0, "best_s": 10.0, "score": 0.5, "audio": "[2].wav", "url": url}
    terminal = Console(force_terminal=True, width=80, file=io.StringIO())
    terminal.print(places_table([line], terminal))
    shown = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(rf"\x1b]8;id=\d+;{re.escape(url)}\x1b\\[^\n]*2[^\n]*\x1b]8;;\x1b", shown)
    assert "[2].wav" in shown


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("asked", [[], ["--not-like", "task:3"]])
def test_it_wants_something_that_it_shall_be_like(clapboard: Clapboard, asked: list[str]) -> None:
    done = clapboard("search", "--project", "7", *asked, model="mini")
    assert isinstance(done.exception, RequestError)
    assert "give a text, --like or --task" in str(done.exception)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    "asked",
    [
        ["rain", "--top", "0"],
        ["rain", "--top", "1001"],
        ["rain", "--project", "0"],
        ["--task", "0"],
    ],
)
def test_numbers_have_bounds(clapboard: Clapboard, asked: list[str]) -> None:
    assert clapboard("search", "--project", "7", *asked, model="mini").exit_code == 2


@pytest.mark.usefixtures("store")
def test_what_isnt_there_is_said(clapboard: Clapboard, barking: str) -> None:
    for asked, kind, message in (
        (["--project", "8", "rain"], NotFoundError, "Project 8 is unknown here"),
        (["--project", "7", "--task", "9"], NotFoundError, "Task 9 of project 7 isn't embedded"),
        (["--project", "7", " "], LabelConfigError, "empty"),
        (["--project", "7", "--like", "nowhere.wav:1-2"], AudioError, "nowhere.wav doesn't exist"),
        (["--project", "7", "--like", f"{barking}:2-1"], RequestError, "ends before it begins"),
        (
            ["--project", "7", "--like", f"{barking}:5-7"],
            AudioError,
            "bark: 1.wav is 6.0 s long: choose a piece that ends before that",
        ),
    ):
        done = clapboard("search", *asked, model="mini")
        assert isinstance(done.exception, kind)
        assert message in str(done.exception)


def test_without_a_worker_or_embeddings_it_says_what_to_start(clapboard: Clapboard, empty: Store) -> None:
    assert isinstance(clapboard("search", "--project", "7", "rain", model="mini").exception, NoWorkerError)
    empty.catalog.announce_encoder(Encoder("mini", "ab12", "float32", 4, 10.0))
    done = clapboard("search", "--project", "7", "rain", model="mini")
    assert isinstance(done.exception, NotFoundError)
    assert "run `clapboard prelabel -p 7`" in str(done.exception)


def test_a_checkpoint_that_embedded_nothing_of_it_is_refused(
    clapboard: Clapboard, store: Store, encoder: ClapEncoder
) -> None:
    store.catalog.announce_encoder(Encoder("mini", "ab12", "float32", 256, 10.0))  # another one under that name
    for task in range(1, 5):
        recording = Recording(f"{task:064x}", 1, 5.0)
        (vectors,) = store.embeddings.get([recording], encoder.identity.version, "float32").values()
        store.embeddings.put(f"{task:064x}", "ab12", "float32", 0, vectors)
    done = clapboard("search", "--project", "7", "rain", model="mini")
    assert isinstance(done.exception, ModelError)
    assert "isn't the one that the workers embedded" in str(done.exception)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, encoder: ClapEncoder) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("house")
    with Installation(folder, "mini") as house:
        house.store.catalog.put_project(PROJECT, CHOICES, "v1")
        embed_clips(house.store, encoder, folder)
        bark = synthesise("dog bark", 2_100_000_099, 5.0)
        soundfile.write(folder / "bark.wav", bark, SAMPLE_RATE)
        silent_then_bark = np.concatenate([np.zeros(40 * SAMPLE_RATE, np.float32), bark])
        stereo = np.stack([silent_then_bark, silent_then_bark], axis=1)
        soundfile.write(folder / "large.wav", stereo, SAMPLE_RATE, subtype="FLOAT")  # 17 MB
        (folder / "text.wav").write_text("no audio at all")
        yield house


@pytest.fixture(scope="module")
def without(house: Installation) -> subprocess.CompletedProcess[str]:
    """What the command finds by itself."""
    return house.run("search", "--project", "7", *ASKED, "--json")


@pytest.fixture(scope="module")
def search(house: Installation, without: subprocess.CompletedProcess[str]) -> Callable[..., Any]:
    assert without.returncode == 0
    house.worker("--queues", "search")

    def run(*asked: str) -> Any:
        # What Python imports is then told on standard error, where torch is looked for.
        done = subprocess.run(
            [sys.executable, "-m", "clapboard", "search", "--project", "7", *asked, "--json"],
            cwd=house.folder,
            env=house.environment | {"PYTHONPROFILEIMPORTTIME": "1"},
            capture_output=True,
            text=True,
        )
        assert re.search(r"\| +clapboard\.search\.search_service\n", done.stderr)
        assert not re.search(r"\| +torch\n", done.stderr)
        return done.returncode, json.loads(done.stdout)

    return run


class TestByAWorker:
    """With a worker up, the command loads no model, and needs no file that the worker sees."""

    def test_texts_tasks_and_files_find_what_they_find_without_one(
        self, search: Callable[..., Any], without: subprocess.CompletedProcess[str]
    ) -> None:
        code, found = search(*ASKED)
        assert code == 0
        assert [one["task"] for one in found["matches"]] == [4, 2]
        assert "Loading the model mini, which takes a while: no worker is alive" in without.stderr
        for here, there in zip(json.loads(without.stdout)["matches"], found["matches"], strict=True):
            assert here == there | {"score": pytest.approx(there["score"], abs=1e-6)}

    def test_a_piece_of_a_large_file_is_sent_decoded(self, search: Callable[..., Any], house: Installation) -> None:
        _, whole = search("--like", "bark.wav")
        _, piece = search("--like", "large.wav:40-45")
        assert [one["task"] for one in piece["matches"]] == [one["task"] for one in whole["matches"]]
        assert piece["matches"][0]["score"] == pytest.approx(whole["matches"][0]["score"], abs=2e-3)
        done = house.run("search", "--project", "7", "--like", "large.wav", "--json")
        assert done.returncode == 0
        assert "Loading the model mini, which takes a while: its files are too large to be sent" in done.stderr

    def test_what_the_worker_cant_do_is_told_by_the_files_name(self, search: Callable[..., Any]) -> None:
        code, told = search("--like", "text.wav")
        assert (code, told["error"]) == (2, "audio")
        assert told["detail"].startswith("text.wav is no audio")
        code, told = search("--like", "bark.wav:4-9")
        assert code == 2
        assert told["detail"].startswith("bark.wav is 5.0 s long")
        code, told = search("--task", "9")
        assert (code, told["error"]) == (2, "not_found")

    def test_another_model_than_the_workers_is_loaded_here(self, house: Installation) -> None:
        done = house.run("search", "--project", "7", "rain", "--model", "/nowhere/clap")
        assert done.returncode == 3
        assert "No worker has loaded the model /nowhere/clap" in done.stderr

    def test_nothing_of_a_search_is_kept(self, house: Installation) -> None:
        with house.store.database.read() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM searches").scalar() == 0
