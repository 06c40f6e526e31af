"""The demo's clips: synthetic sounds of many kinds, and real ones if ESC-10 lies beside the project.

`python -m demo.clips FOLDER` writes 300 clips of a pump to a new folder, with a manifest for `clapboard evaluate`.
"""

from __future__ import annotations

import csv
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import typer

from clapboard.audio.windows import SAMPLE_RATE
from demo import plant, pump
from training.sounds.synthesis import synthesise

SYNTHETIC_KINDS = (
    *("dog bark", "rooster", "rain", "sea waves", "fire crackling", "clock tick", "helicopter", "chainsaw"),
    *("bird chirp", "cricket", "applause", "bell", "siren", "phone ring", "music", "white noise"),
)
SEED = 2_100_000_000  # above all seeds of the sounds that the embedded checkpoint was trained on
_ESC10 = Path(__file__).parent.parent.parent / "shared" / "esc10"
_HELD_OUT_FOLD = "4"


@dataclass(frozen=True)
class Clip:
    """An audio file, and the true label of its sound."""

    path: Path
    label: str
    origin: str  # «synthetic» or «ESC-10»


def make_clips(folder: Path, num_clips: int = 40) -> list[Clip]:
    """Write clips to a new folder: one real clip per class of ESC-10 if that is there, the rest synthesised."""
    folder.mkdir(parents=True)
    clips = _real_clips()
    for number in range(num_clips - len(clips)):
        kind = SYNTHETIC_KINDS[number % len(SYNTHETIC_KINDS)]
        rng = np.random.default_rng(SEED + number)
        path = folder / f"{kind.replace(' ', '_')}-{number}.flac"
        soundfile.write(path, synthesise(kind, SEED + number, rng.uniform(3.0, 9.0)), SAMPLE_RATE)
        clips.append(Clip(path, kind, "synthetic"))
    return clips


def make_pump_clips(folder: Path, num_clips: int) -> list[Clip]:
    """Write clips of a pump to a new folder: equally many of each state, in random order."""
    folder.mkdir(parents=True)
    states = [state for number, state in zip(range(num_clips), itertools.cycle(pump.STATES), strict=False)]
    clips = []
    for number, state in enumerate(np.random.default_rng(SEED).permutation(states)):
        path = folder / f"pump-{number}.flac"
        duration_s = np.random.default_rng(SEED + number).uniform(3.0, 5.0)
        soundfile.write(path, pump.pump(str(state), SEED + number, duration_s), SAMPLE_RATE)
        clips.append(Clip(path, str(state), "pump"))
    return clips


def make_plant_clips(folder: Path, num_clips: int) -> list[Clip]:
    """Write clips of a plant to a new folder, alternately in order and out of order."""
    folder.mkdir(parents=True)
    clips = []
    for number, state in zip(range(num_clips), itertools.cycle(plant.STATES), strict=False):
        path = folder / f"plant-{number}.flac"
        duration_s = np.random.default_rng(SEED + number).uniform(3.0, 5.0)
        soundfile.write(path, plant.plant(state, SEED + number, duration_s), SAMPLE_RATE)
        clips.append(Clip(path, state, "plant"))
    return clips


def label_config(labels: list[str]) -> str:
    """A label config that asks for one of these labels for each clip."""
    choices = "\n".join(f'    <Choice value="{label}"/>' for label in labels)
    return f"""<View>
  <Header value="What do you hear?"/>
  <Audio name="audio" value="$audio"/>
  <Choices name="sound" toName="audio" choice="single-radio" showInline="true">
{choices}
  </Choices>
</View>"""


def write_manifest(folder: Path, num_clips: int = 300) -> None:
    """Write clips of a pump to FOLDER, and clips.csv, which lists them for `clapboard evaluate`."""
    if folder.exists():
        raise typer.BadParameter(f"{folder} exists already: name a new folder.")
    clips = make_pump_clips(folder, num_clips)
    with (folder / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "group"))
        table.writerows((clip.path.name, clip.label, clip.path.stem) for clip in clips)


def _real_clips() -> list[Clip]:
    """One clip per class of ESC-10, from the fold that the embedded checkpoint was not trained on."""
    if not (_ESC10 / "esc10.csv").is_file():
        return []
    with (_ESC10 / "esc10.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["fold"] == _HELD_OUT_FOLD]
    by_label = {row["category"]: row for row in reversed(rows)}  # the first row of each
    return [Clip(_ESC10 / "audio" / row["filename"], label, "ESC-10") for label, row in sorted(by_label.items())]


if __name__ == "__main__":
    typer.run(write_manifest)
