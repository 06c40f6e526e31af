"""Sounds as people name them, and the views of them that an encoder gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from clapboard.audio.windows import SAMPLE_RATE, WINDOW_SAMPLES, Span, Window, window_waveform, windows
from clapboard.errors import AudioError, LabelConfigError, RequestError
from clapboard.memo import Memory
from clapboard.model.clap import ClapEncoder, EncoderIdentity
from clapboard.search.example_embedder import ExampleEmbedder
from clapboard.search.search_terms import LONGEST_S, FileSound, TaskSound, read_sound
from clapboard.suggest.scoring import Array, mean_direction


class FakeEncoder:
    """Keeps the waveforms that it was given; an embedding follows from the samples."""

    identity = EncoderIdentity("fake_encoder", "ab12", "float32", 4, 10.0)
    batch_size = 2

    def __init__(self) -> None:
        self.waveforms: list[Array] = []

    def embed_windows(self, waveforms: Sequence[Array]) -> Array:
        self.waveforms += waveforms
        return np.stack(waveforms).reshape(len(waveforms), 4, -1).sum(axis=2)

    def views(self, path: Path, **reading: Any) -> Iterator[Window]:
        return windows(path, **reading)

    def embed_views(self, views: Sequence[Window]) -> Array:
        return self.embed_windows([view.waveform for view in views])

    def embed_texts(self, texts: Sequence[str]) -> Array:
        return np.array([[len(text), text.count("rain"), 0, 1] for text in texts], np.float32)


@pytest.fixture
def fake_encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def embedder(fake_encoder: FakeEncoder) -> ExampleEmbedder:
    return ExampleEmbedder(lambda: fake_encoder, Memory())  # type: ignore[arg-type, return-value]


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    """25 s in which each sample says where it is."""
    path = tmp_path / "ramp.wav"
    soundfile.write(path, np.linspace(0, 0.9, 25 * SAMPLE_RATE, dtype=np.float32), SAMPLE_RATE, subtype="FLOAT")
    return path


class TestNames:
    @pytest.mark.parametrize(
        ("piece", "span"),
        [
            ("3.5-6", Span(3.5, 6)),
            ("0-10", Span(0, 10)),
            ("1:02-1:05.5", Span(62, 65.5)),
            ("59-1:00:02", Span(59, 3602)),
        ],
    )
    def test_a_piece_is_given_in_seconds_or_minutes_and_seconds(self, ramp: Path, piece: str, span: Span) -> None:
        assert read_sound(f"{ramp}:{piece}") == FileSound(ramp, "ramp.wav", span)
        assert read_sound(f"task:17:{piece}") == TaskSound(17, span)

    def test_without_a_piece_the_whole_sound_is_meant(self, ramp: Path) -> None:
        assert read_sound(str(ramp)) == FileSound(ramp, "ramp.wav")
        assert read_sound("task:17") == TaskSound(17)

    @pytest.mark.parametrize("name", ["a:b.wav", "take:1", "at 1:02", "task:17", "a:3-5", "a:3-5:"])
    def test_files_may_have_colons_in_their_names(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / name).touch()
        assert read_sound(f"./{name}") == FileSound(Path(name), name)
        assert read_sound(f"./{name}:1:02-1:05") == FileSound(Path(name), name, Span(62, 65))

    @pytest.mark.parametrize(
        ("text", "error", "message"),
        [
            ("nowhere.wav", AudioError, r"nowhere\.wav doesn't exist"),
            ("nowhere.wav:1-2", AudioError, r"nowhere\.wav doesn't exist"),
            ("task:x", AudioError, "task:x doesn't exist: give FILE, FILE:START-END"),
            ("task:17:", RequestError, "task:17: names no piece"),
            ("task:17:3", RequestError, "task:17:3 names no piece"),
            ("task:17:6-3.5", RequestError, "The piece 6-3.5 of task:17 ends before it begins"),
            ("task:17:6-6", RequestError, "ends before it begins"),
        ],
    )
    def test_a_name_of_no_sound_is_refused_in_a_sentence(self, text: str, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            read_sound(text)

    def test_a_name_that_no_file_can_have_is_told_in_a_sentence(self, tmp_path: Path) -> None:
        with pytest.raises(AudioError, match="doesn't exist"):
            read_sound("a" * 300)
        name = "a" * 250 + ".wav"
        (tmp_path / name).touch()
        assert read_sound(f"{tmp_path / name}:1:02-1:05") == FileSound(tmp_path / name, name, Span(62, 65))

    def test_a_folder_that_may_not_be_looked_into_is_told_in_a_sentence(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> bool:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "exists", refuse)  # root, as which tests may run, may look everywhere
        with pytest.raises(AudioError, match=r"a\.wav can't be reached: check its folder's permissions"):
            read_sound(str(tmp_path / "a.wav"))

    def test_a_piece_of_a_file_that_ends_before_it_begins_names_the_file(self, ramp: Path) -> None:
        with pytest.raises(RequestError, match=r"The piece 6-3 of .*ramp\.wav ends before it begins"):
            read_sound(f"{ramp}:6-3")


class TestHearing:
    def test_a_short_piece_is_repeated_like_a_clip_of_that_length(
        self, embedder: ExampleEmbedder, fake_encoder: FakeEncoder, ramp: Path
    ) -> None:
        embedder.sound(FileSound(ramp, "ramp.wav", Span(3.5, 6)))
        samples, _ = soundfile.read(ramp, dtype="float32")
        (embedded,) = fake_encoder.waveforms
        np.testing.assert_array_equal(embedded, window_waveform(samples[int(3.5 * SAMPLE_RATE) : 6 * SAMPLE_RATE])[0])

    @pytest.mark.parametrize("span", [None, Span(0.5, 24.5)])
    def test_a_long_one_is_the_mean_direction_of_its_windows(
        self, embedder: ExampleEmbedder, fake_encoder: FakeEncoder, ramp: Path, span: Span | None
    ) -> None:
        found = embedder.sound(FileSound(ramp, "ramp.wav", span))
        samples, _ = soundfile.read(ramp, dtype="float32")
        start, end = (0, samples.size) if span is None else (SAMPLE_RATE // 2, samples.size - SAMPLE_RATE // 2)
        expected = window_waveform(samples[start:end])
        np.testing.assert_array_equal(np.stack(fake_encoder.waveforms), expected)
        np.testing.assert_allclose(found, mean_direction(FakeEncoder().embed_windows([*expected])), atol=1e-6)

    @pytest.mark.parametrize("span", [Span(20, 26), Span(25, 26), Span(30, 31)])
    def test_a_piece_outside_of_the_file_is_refused(self, embedder: ExampleEmbedder, ramp: Path, span: Span) -> None:
        with pytest.raises(
            AudioError, match=r"ramp\.wav is 25\.0 s long: choose a piece that ends before that, not \d+–\d+ s"
        ):
            embedder.sound(FileSound(ramp, "ramp.wav", span))

    def test_an_end_that_was_rounded_up_is_the_end(
        self, embedder: ExampleEmbedder, fake_encoder: FakeEncoder, ramp: Path
    ) -> None:
        embedder.sound(FileSound(ramp, "ramp.wav", Span(20, 25.04)))
        assert fake_encoder.waveforms[0][5 * SAMPLE_RATE - 1] == pytest.approx(0.9)

    def test_what_is_no_audio_is_refused(self, embedder: ExampleEmbedder, tmp_path: Path) -> None:
        (tmp_path / "a.wav").write_text("no audio")
        with pytest.raises(AudioError, match=r"a\.wav is no audio"):
            embedder.sound(FileSound(tmp_path / "a.wav", "a.wav", Span(0, 1)))

    def test_a_sound_that_is_too_long_to_wait_for_is_refused_but_a_piece_of_it_isnt(
        self, embedder: ExampleEmbedder, fake_encoder: FakeEncoder, tmp_path: Path
    ) -> None:
        path = tmp_path / "long.wav"
        soundfile.write(path, np.full(int((LONGEST_S + 5) * 8_000), 0.1, np.float32), 8_000)
        for span in (None, Span(1, LONGEST_S + 2)):
            with pytest.raises(AudioError, match="longer than the 600 s"):
                embedder.sound(FileSound(path, "long.wav", span))
        assert fake_encoder.waveforms == []
        embedder.sound(FileSound(path, "long.wav", Span(LONGEST_S, LONGEST_S + 5)))
        assert [window.shape for window in fake_encoder.waveforms] == [(WINDOW_SAMPLES,)]

    def test_with_fusion_a_long_file_is_most_like_itself(self, tiny_fused_clap: Path, tmp_path: Path) -> None:
        encoder = ClapEncoder.load(str(tiny_fused_clap), device="cpu", engine="torch", fusion=True)
        embedder = ExampleEmbedder(lambda: encoder, Memory())
        rng = np.random.default_rng(5)
        paths = [tmp_path / f"{number}.wav" for number in range(4)]
        for number, path in enumerate(paths):  # noise that comes and goes, each in its own time
            pulse = 0.5 + 0.5 * np.sin((number + 1) * np.linspace(0, 9, 25 * 16_000))
            soundfile.write(path, 0.3 * pulse * rng.standard_normal(pulse.size), 16_000)
        stored = np.concatenate([encoder.embed_file(path) for path in paths])
        for number, path in enumerate(paths):
            embedded = embedder.sound(FileSound(path, path.name))
            np.testing.assert_allclose(embedded, stored[number], atol=1e-6)
            assert np.argmax(stored @ embedded) == number

    def test_embeddings_are_remembered_by_content_and_piece(
        self, embedder: ExampleEmbedder, fake_encoder: FakeEncoder, ramp: Path
    ) -> None:
        first = embedder.sound(FileSound(ramp, "ramp.wav", Span(0, 5), "c0ffee"))
        ramp.unlink()
        np.testing.assert_array_equal(embedder.sound(FileSound(ramp, "ramp.wav", Span(0, 5), "c0ffee")), first)
        assert len(fake_encoder.waveforms) == 1
        with pytest.raises(AudioError):
            embedder.sound(FileSound(ramp, "ramp.wav", Span(0, 6), "c0ffee"))

    def test_a_text_is_read_as_a_label_beside_one_that_says_nothing(self, embedder: ExampleEmbedder) -> None:
        weight, neutral = embedder.text("rain")
        assert weight[1] > 0
        assert neutral[1] == 0
        with pytest.raises(LabelConfigError, match="empty"):
            embedder.text(" ")
