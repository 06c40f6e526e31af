"""Figures that others published on the same data sets, each with its source.

The supervised figures of CLAP's authors are of finetuned audio encoders; ours are of linear probes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ZERO_SHOT, SUPERVISED = "zero-shot", "supervised"
RETRIEVAL = tuple(f"{way} {measure}" for way in ("T→A", "A→T") for measure in ("R@1", "R@5", "R@10", "mAP@10"))
"""From text to audio, and from audio to text."""


@dataclass(frozen=True)
class Published:
    """One model's figures, data set → measure → per cent, with as many digits as in the source."""

    model: str
    source: str
    figures: Mapping[str, Mapping[str, str]]


_AUTHORS_TABLE = "LAION-AI/CLAP, assets/clap-zeroshot.PNG"
_AUTHORS_README = "LAION-AI/CLAP, README"
_AUTHORS_RECALLS = "arXiv 2211.06687, as quoted in arXiv 2503.03983, table 7"
_RECALLS_IN_ISSUE = "quoted in LAION-AI/CLAP#59, whole per cent"
_B4PH = "huggingface.co/datasets/b4ph/clap-retrieval-benchmark, clips cut short"

PUBLISHED = (
    Published(
        "Wav2CLIP",
        _AUTHORS_TABLE,
        {
            "esc50": {ZERO_SHOT: "41.4"},
            "us8k": {ZERO_SHOT: "40.4"},
            "vggsound": {ZERO_SHOT: "10.0", SUPERVISED: "46.6"},
            "fsd50k": {SUPERVISED: "43.1"},
        },
    ),
    Published("AudioCLIP", _AUTHORS_TABLE, {"esc50": {ZERO_SHOT: "69.4"}, "us8k": {ZERO_SHOT: "65.3"}}),
    Published(
        "Microsoft CLAP 2022",
        _AUTHORS_TABLE,
        {"esc50": {ZERO_SHOT: "82.6"}, "us8k": {ZERO_SHOT: "73.2"}, "fsd50k": {SUPERVISED: "58.6"}},
    ),
    Published(
        "best before LAION-CLAP",
        _AUTHORS_TABLE,
        {
            "esc50": {ZERO_SHOT: "82.6"},
            "us8k": {ZERO_SHOT: "73.2"},
            "gtzan": {ZERO_SHOT: "62.0", SUPERVISED: "83.9"},
            "vggsound": {ZERO_SHOT: "10.0", SUPERVISED: "64.1"},
            "fsd50k": {SUPERVISED: "65.6"},
        },
    ),
    Published(
        "LAION-CLAP",
        _AUTHORS_TABLE,
        {
            "esc50": {ZERO_SHOT: "91.0"},
            "us8k": {ZERO_SHOT: "77.0"},
            "gtzan": {ZERO_SHOT: "73.0"},
            "vggsound": {ZERO_SHOT: "46.2", SUPERVISED: "75.3"},
            "fsd50k": {SUPERVISED: "59.7"},
        },
    ),
    Published(
        "LAION-CLAP",
        _AUTHORS_RECALLS,
        {
            "audiocaps": {
                "T→A R@1": "36.1",
                "T→A R@5": "71.8",
                "T→A R@10": "83.9",
                "A→T R@1": "46.8",
                "A→T R@5": "82.9",
                "A→T R@10": "90.7",
            },
            "clotho": {
                "T→A R@1": "16.1",
                "T→A R@5": "38.3",
                "T→A R@10": "51.1",
                "A→T R@1": "22.7",
                "A→T R@5": "48.5",
                "A→T R@10": "60.8",
            },
        },
    ),
    Published("630k-audioset-best", f"{_AUTHORS_README}, first split of ESC-50", {"esc50": {ZERO_SHOT: "92.75"}}),
    Published(
        "630k-audioset-fusion-best", f"{_AUTHORS_README}, first split of ESC-50", {"esc50": {ZERO_SHOT: "90.50"}}
    ),
    Published("music_audioset_epoch_15", _AUTHORS_README, {"esc50": {ZERO_SHOT: "90.14"}, "gtzan": {ZERO_SHOT: "71"}}),
    Published("music_speech_epoch_15", _AUTHORS_README, {"esc50": {ZERO_SHOT: "89.25"}, "gtzan": {ZERO_SHOT: "69"}}),
    Published(
        "music_speech_audioset_epoch_15", _AUTHORS_README, {"esc50": {ZERO_SHOT: "89.98"}, "gtzan": {ZERO_SHOT: "51"}}
    ),
    Published(
        "laion/clap-htsat-unfused",
        "pymill.com/docs/reproducibility",
        {"esc50": {ZERO_SHOT: "91.55"}, "us8k": {ZERO_SHOT: "75.16"}},
    ),
    Published(
        "laion/clap-htsat-unfused",
        _B4PH,
        {"audiocaps": {"T→A R@1": "33.4", "A→T R@1": "34.7"}, "clotho": {"T→A R@1": "15.4", "A→T R@1": "19.9"}},
    ),
    Published(
        "laion/clap-htsat-fused",
        _B4PH,
        {"audiocaps": {"T→A R@1": "34.9", "A→T R@1": "33.8"}, "clotho": {"T→A R@1": "13.2", "A→T R@1": "15.4"}},
    ),
    Published("Microsoft CLAP 2023", "microsoft/CLAP, README", {"esc50": {ZERO_SHOT: "93.9"}}),
    Published("M2D-CLAP", "arXiv 2406.02032, abstract", {"gtzan": {ZERO_SHOT: "75.17"}}),
    Published(
        "ReCLAP",
        "arXiv 2409.09213, by wizwand.com",
        {"esc50": {ZERO_SHOT: "92.8"}},
    ),
    Published(
        "LAION-CLAP, AudioCaps + Clotho",
        _RECALLS_IN_ISSUE,
        {"audiocaps": {"T→A R@1": "36", "T→A R@5": "70", "T→A R@10": "83"}},
    ),
    Published(
        "LAION-CLAP, a published checkpoint",
        _RECALLS_IN_ISSUE,
        {"audiocaps": {"T→A R@1": "32", "T→A R@5": "68", "T→A R@10": "81"}},
    ),
)
