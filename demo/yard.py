"""The demo's third part: a minute of yard sound that opens with regions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from clapboard.audio.windows import SAMPLE_RATE
from clapboard.suggest.events.event import Event
from demo.clips import SEED
from training.evaluation.events.figures import matches
from training.sounds.mixtures import Scene, TimedSound, mixture
from training.sounds.synthesis import synthesise

KINDS = ("dog bark", "rooster", "bell", "siren", "phone ring")
_CLIPS_PER_KIND = 4


@dataclass(frozen=True)
class Yard:
    """An audio file, and the sounds in it."""

    path: Path
    sounds: tuple[TimedSound, ...]


def make_yard(path: Path) -> Yard:
    """Write a minute of synthetic sounds over noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clips = {kind: [synthesise(kind, SEED + number, 3.0) for number in range(_CLIPS_PER_KIND)] for kind in KINDS}
    mixed = mixture(clips, [], np.random.default_rng(SEED), Scene(above_background_db=(12.0, 20.0)))
    soundfile.write(path, mixed.waveform, SAMPLE_RATE)
    return Yard(path, mixed.sounds)


def yard_config() -> str:
    """A label config that asks when each kind is heard."""
    labels = "\n".join(f'    <Label value="{kind}"/>' for kind in KINDS)
    return f"""<View>
  <Audio name="audio" value="$audio"/>
  <Labels name="heard" toName="audio">
{labels}
  </Labels>
</View>"""


def beside_the_truth(yard: Yard, result: list[dict[str, Any]]) -> list[tuple[Event | None, Event | None]]:
    """Pairs of a true and a suggested event that overlap by half, by start; then those that have no other."""
    true = [Event(sound.start_s, sound.end_s, KINDS.index(sound.kind), 1.0) for sound in yard.sounds]
    suggested = [
        Event(item["value"]["start"], item["value"]["end"], KINDS.index(item["value"]["labels"][0]), item["score"])
        for item in result
        if item["type"] == "labels"
    ]
    paired = matches(suggested, true)
    rows: list[tuple[Event | None, Event | None]] = [(real, found) for found, real in paired]
    rows += [(real, None) for real in true if real not in [pair[1] for pair in paired]]
    rows += [(None, found) for found in suggested if found not in [pair[0] for pair in paired]]
    return sorted(rows, key=lambda row: (row[0] or row[1] or true[0]).start_s)
