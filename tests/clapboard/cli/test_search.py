"""`clapboard search` with the embedded model and sounds that it knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from clapboard.audio import SAMPLE_RATE
from clapboard.clap import ClapEncoder
from clapboard.errors import LabelConfigError, ModelError, NotFoundError, NoWorkerError
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.embeddings import Recording
from clapboard.store.tasks import KnownTask
from tests.clapboard.cli.conftest import Clapboard, lines
from tests.fake_label_studio import CHOICES
from training.sounds.synthesis import synthesise

PROJECT = 7
KINDS = ("rain", "siren", "dog bark", "dog bark")  # of tasks 1 to 4
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
    named = encoder.identity
    empty.catalog.announce_encoder(Encoder("mini", named.version, named.dtype, named.dim, named.logit_scale))
    for task, kind in enumerate(KINDS, 1):
        soundfile.write(tmp_path / "clip.wav", synthesise(kind, 2_100_000_000 + task, 5.0), SAMPLE_RATE)
        uri, key = f"https://host.example/[{task}].wav?{SECRET}", f"key-{task}"
        empty.tasks.put(PROJECT, [KnownTask(task, uri, key, key, False)])
        empty.embeddings.put_recording(key, Recording(f"{task:064x}", 1, 5.0))
        vectors = encoder.embed_file(tmp_path / "clip.wav")
        empty.embeddings.put(f"{task:064x}", named.version, named.dtype, 0, vectors)
    return empty


@pytest.mark.usefixtures("store")
def test_a_text_finds_the_clips_that_sound_like_it(clapboard: Clapboard) -> None:
    done = clapboard("search", "--project", "7", "dog bark", "--json", model="mini")
    found = lines(done)
    assert {one["task"] for one in found[:2]} == {3, 4}
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
    assert list(found[0]) == ["task", "start_s", "end_s", "score", "audio"]
    assert (found[0]["start_s"], found[0]["end_s"]) == (0.0, 5.0)
    assert found[0]["audio"] == f"https://host.example/[{found[0]['task']}].wav"
    (rain,) = lines(clapboard("search", "--project", "7", "rain", "--top", "1", "--json", model="mini"))
    assert rain["task"] == 1


@pytest.mark.usefixtures("store")
def test_a_task_finds_the_others_that_sound_like_it(clapboard: Clapboard) -> None:
    found = lines(clapboard("search", "--project", "7", "--task", "3", "--json", model="mini"))
    assert found[0]["task"] == 4
    assert len(found) == 3
    assert found[0]["score"] > found[1]["score"] + 0.1


@pytest.mark.usefixtures("store")
def test_people_get_a_table_without_secrets(clapboard: Clapboard) -> None:
    done = clapboard("search", "--project", "7", "siren", model="mini")
    first = next(line for line in done.stdout.splitlines() if "host.example" in line)
    assert first.replace("│", " ").split()[:3] == ["2", "0.0", "s"]
    assert "https://host.example/[2].wav" in first
    assert SECRET not in done.stdout


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    "asked", [[], ["rain", "--task", "3"], ["rain", "--top", "0"], ["rain", "--project", "0"], ["--task", "0"]]
)
def test_it_wants_a_text_or_a_task(clapboard: Clapboard, asked: list[str]) -> None:
    assert clapboard("search", "--project", "7", *asked, model="mini").exit_code == 2


@pytest.mark.usefixtures("store")
def test_what_isnt_there_is_said(clapboard: Clapboard) -> None:
    for asked, kind, message in (
        (["--project", "8", "rain"], NotFoundError, "Project 8 is unknown here"),
        (["--project", "7", "--task", "9"], NotFoundError, "Task 9 of project 7 isn't embedded"),
        (["--project", "7", " "], LabelConfigError, "empty"),
    ):
        done = clapboard("search", *asked, model="mini")
        assert isinstance(done.exception, kind)
        assert message in str(done.exception)


def test_without_a_worker_or_embeddings_it_says_what_to_start(clapboard: Clapboard, empty: Store) -> None:
    assert isinstance(clapboard("search", "--project", "7", "rain", model="mini").exception, NoWorkerError)
    empty.catalog.announce_encoder(Encoder("mini", "ab12", "float32", 4, 10.0))
    done = clapboard("search", "--project", "7", "rain", model="mini")
    assert isinstance(done.exception, NotFoundError)
    assert "run `clapboard prelabel --project 7`" in str(done.exception)


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
