"""How well the embedded checkpoint tells when a sound is heard, on one-minute mixtures at known times."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch

from clapboard.audio.levels import Levels, levels
from clapboard.audio.windows import SAMPLE_RATE, WINDOW_SAMPLES, Waveform
from clapboard.labels.prompts import NEGATIVES, prompts_for
from clapboard.model.clap import ClapEncoder
from clapboard.model.recording_frames import embed_recording
from clapboard.suggest.events.event import Event, EventRules
from clapboard.suggest.events.finding import find_events
from clapboard.suggest.events.probabilities import frame_probabilities, text_frame_head
from clapboard.suggest.scoring import mean_direction
from training.evaluation.events.figures import Counts, edge_errors_s, event_counts, matches
from training.mini.esc10 import Recording
from training.sounds.mixtures import mixture

KINDS_A_MIXTURE = 6
MIXTURES = 12
_BACKGROUNDS = ("rain", "sea waves", "fire crackling", "helicopter")


@dataclass(frozen=True)
class EventFigure:
    """One row of the card's second table: F1 of events with an IoU above 0.5, and the median error of their edges."""

    name: str
    num_events: int
    f1: float
    precision: float
    recall: float
    edge_error_s: float


def measure_events(encoder: ClapEncoder, clips: Sequence[Recording], mixtures: int = MIXTURES) -> list[EventFigure]:
    """The figures on so many mixtures of the clips in noise, and over clips of a kind that isn't among the labels."""
    backgrounds = {"in noise": False, "over another kind of sound": True}
    return [_figure(encoder, clips, name, sounding, mixtures) for name, sounding in backgrounds.items()]


def suggested_events(encoder: ClapEncoder, waveform: Waveform, kinds: Sequence[str]) -> list[Event]:
    """The events of these kinds in a recording `[T]`, by the rules that serve where nobody has set others."""
    texts = [prompts_for(kind) for kind in kinds]
    weights = np.stack([mean_direction(encoder.embed_texts(list(prompts))) for prompts in (*texts, NEGATIVES)])
    head = text_frame_head(weights, encoder.logit_scale, encoder.frame_scores)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mixture.wav"
        soundfile.write(path, waveform, SAMPLE_RATE, subtype="FLOAT")
        recording = embed_recording(encoder, path)
    probabilities = frame_probabilities(recording.frames, head, len(kinds))
    rules = EventRules.default(len(kinds))
    return find_events(probabilities, recording.frame_s, recording.duration_s, rules, levels=_levels(encoder, waveform))


def _levels(encoder: ClapEncoder, waveform: Waveform) -> Levels:
    """The levels of a recording of some whole windows."""
    with torch.inference_mode():
        log_mel = encoder.log_mel(torch.from_numpy(waveform.reshape(-1, WINDOW_SAMPLES)))
    return np.concatenate(levels(log_mel.float().numpy()))


def _figure(encoder: ClapEncoder, clips: Sequence[Recording], name: str, sounding: bool, mixtures: int) -> EventFigure:
    counts, errors_s = Counts(), []
    for number in range(mixtures):
        rng = np.random.default_rng([sounding, number])
        all_kinds = sorted({clip.kind for clip in clips})
        possible = [kind for kind in all_kinds if kind in _BACKGROUNDS]
        behind = [str(rng.choice(possible))] if sounding else []
        kinds = sorted(rng.choice([kind for kind in all_kinds if kind not in behind], KINDS_A_MIXTURE, replace=False))
        by_kind = {kind: [clip.waveform for clip in clips if clip.kind == kind] for kind in (*kinds, *behind)}
        made = mixture({kind: by_kind[kind] for kind in kinds}, by_kind[behind[0]] if behind else (), rng)
        true = [Event(sound.start_s, sound.end_s, kinds.index(sound.kind), 1.0) for sound in made.sounds]
        suggested = suggested_events(encoder, made.waveform, kinds)
        counts += event_counts(suggested, true)
        errors_s += edge_errors_s(matches(suggested, true))
    return EventFigure(
        name,
        counts.true,
        counts.f1,
        counts.right / max(1, counts.suggested),
        counts.right / max(1, counts.true),
        float(np.median(errors_s)) if errors_s else float("nan"),
    )
