"""Small copies of the public data sets, in their authors' layouts: half a second of sound a clip."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile

RATE_HZ = 16_000
_DURATION_S = 0.5


def sound(path: Path, kind: int, seed: int) -> Path:
    """The path, now a file with a tone whose pitch tells the kind, under noise that tells the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([kind, seed])
    time_s = np.arange(round(RATE_HZ * _DURATION_S)) / RATE_HZ
    tone = np.sin(2 * np.pi * 200 * 2**kind * rng.uniform(0.95, 1.05) * time_s)
    soundfile.write(path, 0.4 * tone + 0.05 * rng.standard_normal(time_s.size), RATE_HZ)
    return path


def table(path: Path, rows: Iterable[Sequence[object]]) -> Path:
    """The path, now a CSV of the rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def esc50(folder: Path, *, folds: int = 5, clips_a_fold: int = 1) -> Path:
    """ESC-50 with three of its labels."""
    rows: list[Sequence[object]] = [("filename", "fold", "target", "category", "esc10", "src_file", "take")]
    for kind, label in enumerate(("dog", "crackling_fire", "mouse_click")):
        for fold in range(1, folds + 1):
            for take in range(clips_a_fold):
                name = f"{fold}-{kind}-{take}.wav"
                sound(folder / "audio" / name, kind, 10 * fold + take)
                rows.append((name, fold, kind, label, label != "mouse_click", kind, take))
    table(folder / "meta/esc50.csv", rows)
    return folder


def esc10(folder: Path) -> Path:
    """ESC-10 as it lies beside this repository, with two labels and four folds."""
    rows: list[Sequence[object]] = [("filename", "fold", "category")]
    for kind, label in enumerate(("dog bark", "rain")):
        for fold in range(1, 5):
            sound(folder / "audio" / f"{label}-{fold}.ogg", kind, fold)
            rows.append((f"{label}-{fold}.ogg", fold, label))
    table(folder / "esc10.csv", rows)
    return folder


def urban_sound_8k(folder: Path) -> Path:
    """UrbanSound8K with two labels, a clip a fold of each."""
    rows: list[Sequence[object]] = [("slice_file_name", "fsID", "start", "end", "fold", "classID", "class")]
    for kind, label in enumerate(("dog_bark", "siren")):
        for fold in range(1, 11):
            name = f"{fold}-{kind}-0-0.wav"
            sound(folder / f"audio/fold{fold}" / name, kind, fold)
            rows.append((name, fold, 0, 0.5, fold, kind, label))
    table(folder / "metadata/UrbanSound8K.csv", rows)
    return folder


def gtzan(folder: Path, *, genres: Sequence[str] = ("blues", "jazz")) -> Path:
    """GTZAN with every tenth clip of two genres, as .wav and .au."""
    for kind, genre in enumerate(genres):
        for number in range(0, 100, 10):
            ending = "au" if number % 20 else "wav"
            sound(folder / genre / f"{genre}.{number:05}.{ending}", kind, number)
    return folder


def vggsound(folder: Path) -> Path:
    """VGGSound with two labels, of which one has commas; ten clips to train on and two to test of each."""
    rows = []
    for kind, label in enumerate(("playing mandolin", "bee, wasp, etc. buzzing")):
        for number in range(12):
            video, start = f"-v_{kind}{number}", 30 + number
            sound(
                folder / "videos" / (f"{video}_{start:06}.flac" if number % 2 else f"{video}_{start}.wav"), kind, number
            )
            rows.append((video, start, label, "test" if number >= 10 else "train"))
    table(folder / "vggsound.csv", rows)
    return folder


def fsd50k(folder: Path) -> Path:
    """FSD50K with three labels, one or two a clip."""
    labels = ("Bark", "Male_speech_and_man_speaking", "Rain")
    table(folder / "FSD50K.ground_truth/vocabulary.csv", [(n, label, f"/m/{n}") for n, label in enumerate(labels)])
    dev: list[Sequence[object]] = [("fname", "labels", "mids", "split")]
    evaluation: list[Sequence[object]] = [("fname", "labels", "mids")]
    for kind in range(3):
        for number in range(6):
            tags = ",".join(sorted({labels[kind], labels[(kind + number % 2) % 3]}))
            name = 100 * kind + number
            if number < 4:
                sound(folder / f"FSD50K.dev_audio/{name}.wav", kind, number)
                dev.append((name, tags, "", "val" if number == 3 else "train"))
            else:
                sound(folder / f"FSD50K.eval_audio/{name}.wav", kind, number)
                evaluation.append((name, tags, ""))
    table(folder / "FSD50K.ground_truth/dev.csv", dev)
    table(folder / "FSD50K.ground_truth/eval.csv", evaluation)
    return folder


def audio_caps(folder: Path, *, listed: str = "test.csv", audio: str = "audio/test") -> Path:
    """AudioCaps' test part: four excerpts with five captions each, under all the names that people give the files."""
    rows: list[tuple[int, str, int, str]] = []
    for kind in range(4):
        video, start = f"_vid{kind}", 10 * kind
        rows += [(1000 * number + kind, video, start, f"Sound {kind}, said {number}") for number in range(5)]
        stem = (video, f"{1000 + kind}", f"{video}_{start}", f"Y{video}")[kind]
        sound(folder / audio / f"{stem}.wav", kind, 0)
    table(folder / listed, [("audiocap_id", "youtube_id", "start_time", "caption"), *sorted(rows)])
    return folder


def audio_caps_of_aac_datasets(folder: Path) -> Path:
    """AudioCaps as the package aac-datasets downloads it."""
    return audio_caps(folder, listed="csv_files_v1/test.csv", audio="audio_32000Hz/test")


def audio_caps_of_its_authors(folder: Path) -> Path:
    """AudioCaps as a clone of its authors' repository, with audio beside it."""
    return audio_caps(folder, listed="dataset2.0/test.csv", audio="audio/test")


def clotho(folder: Path, *, tables: str = ".", audio: str = ".") -> Path:
    """Clotho's evaluation part: three clips with five captions each."""
    rows: list[Sequence[object]] = [("file_name", *(f"caption_{number}" for number in range(1, 6)))]
    for kind in range(3):
        sound(folder / audio / "evaluation" / f"A clip, no. {kind}.wav", kind, 0)
        rows.append((f"A clip, no. {kind}.wav", *(f"Kind {kind}, said {number}." for number in range(5))))
    table(folder / tables / "clotho_captions_evaluation.csv", rows)
    return folder


def clotho_of_dcase(folder: Path) -> Path:
    """Clotho as DCASE's baseline and the package aac-datasets have it."""
    return clotho(folder, tables="clotho_csv_files", audio="clotho_audio_files")


def all_of_them(root: Path) -> Path:
    """The root, now with all eight under usual names."""
    esc50(root / "ESC-50-master")
    esc10(root / "esc10")
    urban_sound_8k(root / "UrbanSound8K")
    gtzan(root / "gtzan" / "Data" / "genres_original")
    vggsound(root / "VGGSound")
    fsd50k(root / "FSD50K")
    audio_caps(root / "AudioCaps")
    clotho(root / "Clotho_v2.1")
    return root
