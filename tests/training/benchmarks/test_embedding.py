from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from clapboard.audio.windows import Waveform
from clapboard.errors import TrainingError
from clapboard.model.clap import ClapEncoder, EncoderIdentity
from clapboard.suggest.scoring import Array, mean_direction
from tests.support.recordings import sweep
from tests.training import benchmark_layouts as layouts
from training.benchmarks.benchmark import BenchmarkClip
from training.benchmarks.cache import EmbeddingCache, FileState
from training.benchmarks.embedding import EmbeddedClips, embed_clips

pytestmark = pytest.mark.usefixtures("one_torch_thread")


class Listener(ClapEncoder):
    """A ClapEncoder that remembers what it heard, and may be killed."""

    heard: list[str]
    dies_at = ""

    def embed_recording(self, recording: Path | Waveform) -> Array:
        assert isinstance(recording, Path)
        if recording.name == self.dies_at:
            raise KeyboardInterrupt
        self.heard.append(recording.name)
        return super().embed_recording(recording)


@pytest.fixture
def encoder(tiny_clap: Path) -> Listener:
    encoder = Listener.load(str(tiny_clap), device="cpu", engine="torch")
    encoder.heard = []
    return encoder


def clip(path: Path | None, name: str = "") -> BenchmarkClip:
    return BenchmarkClip(name or (path.name if path else "gone"), path, "test")


def clips_in(folder: Path, number: int) -> list[BenchmarkClip]:
    return [clip(layouts.sound(folder / f"{seed:02}.wav", seed % 3, seed)) for seed in range(number)]


def embedded(encoder: ClapEncoder, clips: list[BenchmarkClip], folder: Path) -> EmbeddedClips:
    with EmbeddingCache(folder, encoder.identity) as cache:
        return embed_clips(encoder, clips, cache)


def test_embeddings_are_those_that_are_served_in_the_tables_order(encoder: Listener, tmp_path: Path) -> None:
    clips = clips_in(tmp_path, 12)
    found = embedded(encoder, clips, tmp_path / "cache")
    assert found.clips == tuple(clips)
    expected = [mean_direction(encoder.embed_file(one.path)) for one in clips if one.path]
    assert np.array_equal(found.embeddings, np.stack(expected))


def test_a_fused_checkpoint_hears_each_recording_as_a_whole(tiny_fused_clap: Path, tmp_path: Path) -> None:
    encoder = ClapEncoder.load(str(tiny_fused_clap), device="cpu", engine="torch")
    path = tmp_path / "long.wav"
    soundfile.write(path, sweep(12.0, layouts.RATE_HZ), layouts.RATE_HZ)
    (row,) = embedded(encoder, [clip(path)], tmp_path / "cache").embeddings
    assert np.array_equal(row, encoder.embed_recording(path))
    assert not np.allclose(row, mean_direction(encoder.embed_file(path)), atol=1e-3)


def test_missing_and_damaged_clips_are_counted_and_leave_their_neighbours_alone(
    encoder: Listener, tmp_path: Path
) -> None:
    first, second = clips_in(tmp_path, 2)
    (damaged := tmp_path / "damaged.wav").write_text("no audio")
    (dangling := tmp_path / "dangling.wav").symlink_to(tmp_path / "nowhere.wav")
    told: list[None] = []
    listed = [first, clip(None, "lost"), clip(damaged), clip(dangling), second]
    with EmbeddingCache(tmp_path / "cache", encoder.identity) as cache:
        found = embed_clips(encoder, listed, cache, on_clip=lambda: told.append(None))
    assert found.clips == (first, second)
    assert found.embeddings.shape == (2, 32)
    assert found.missing == ("lost",)
    assert [one.path for one in found.unreadable] == [damaged, dangling]
    assert found.unreadable[0].reason.startswith("damaged.wav is no audio")
    assert found.unreadable[1].reason.startswith("dangling.wav can't be opened (No such file")
    assert len(told) == 5


def test_no_clip_at_all_is_an_empty_matrix(encoder: Listener, tmp_path: Path) -> None:
    found = embedded(encoder, [clip(None)], tmp_path / "cache")
    assert (found.clips, found.embeddings.shape, found.missing) == ((), (0, 32), ("gone",))


def test_a_run_that_was_killed_goes_on_where_it_was(encoder: Listener, tmp_path: Path) -> None:
    clips = clips_in(tmp_path, 30)
    encoder.dies_at = "20.wav"
    with pytest.raises(KeyboardInterrupt):
        embedded(encoder, clips, tmp_path / "cache")
    encoder.dies_at, encoder.heard = "", []
    found = embedded(encoder, clips, tmp_path / "cache")
    assert len(found.clips) == 30
    assert {"20.wav", "29.wav"} <= set(encoder.heard)
    assert len(encoder.heard) <= 10
    encoder.heard = []
    again = embedded(encoder, clips, tmp_path / "cache")
    assert encoder.heard == []
    assert np.array_equal(again.embeddings, found.embeddings)


def test_a_file_that_changed_is_heard_anew(encoder: Listener, tmp_path: Path) -> None:
    clips = clips_in(tmp_path, 3)
    before = embedded(encoder, clips, tmp_path / "cache")
    encoder.heard = []
    layouts.sound(tmp_path / "01.wav", 2, 9)
    after = embedded(encoder, clips, tmp_path / "cache")
    assert encoder.heard == ["01.wav"]
    assert np.array_equal(before.embeddings[[0, 2]], after.embeddings[[0, 2]])
    assert not np.allclose(before.embeddings[1], after.embeddings[1])


def test_encoders_share_the_folder_and_not_their_embeddings(tmp_path: Path) -> None:
    file = FileState.of(layouts.sound(tmp_path / "a.wav", 0, 0))
    one, other = (EncoderIdentity("mini", version, "float32", 2, 1.0) for version in ("v1", "v2"))
    with EmbeddingCache(tmp_path, one) as ours, EmbeddingCache(tmp_path, other) as theirs:
        ours.put(file, np.float32([1, 0]))
        assert theirs.get(file) is None
        theirs.put(file, np.float32([0, 1]))
        assert ours.get(file) == pytest.approx([1, 0])
        assert theirs.get(file) == pytest.approx([0, 1])


@pytest.mark.parametrize("spoil", [lambda folder: folder.write_text("x"), lambda folder: folder.mkdir()])
def test_a_cache_that_can_not_be_used_is_one_sentence(spoil: object, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    spoil(folder)  # type: ignore[operator]
    if folder.is_dir():
        (folder / "embeddings.db").write_text("no database, and long enough to be seen as none" * 10)
    with pytest.raises(TrainingError, match=r"embeddings.db can't be used \(.*\): delete it"):
        EmbeddingCache(folder, EncoderIdentity("mini", "v1", "float32", 2, 1.0))
