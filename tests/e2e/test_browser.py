"""Headless Chromium sees in the labelling page what was suggested."""

from __future__ import annotations

import math
import wave
from pathlib import Path

import pytest

from clapboard.label_studio.client import LabelStudioClient
from demo.browser import screenshot_task
from demo.label_studio_server import LabelStudioServer
from tests.fixtures_label_studio import prediction
from tests.fixtures_services import needs_program

CHOICES = """
<View>
  <Header value="What do you hear?"/>
  <Audio name="audio" value="$audio"/>
  <Choices name="clip" toName="audio" choice="single" showInline="true">
    <Choice value="dog"/><Choice value="rooster"/><Choice value="rain"/><Choice value="sea waves"/>
    <Choice value="crackling fire"/><Choice value="crying baby"/><Choice value="sneezing"/>
    <Choice value="clock tick"/><Choice value="helicopter"/><Choice value="chainsaw"/>
  </Choices>
</View>
"""
MODEL_VERSION = "clap-mini-zero-shot-0123abcd"


@pytest.mark.e2e
def test_the_suggestion_is_ticked_and_its_tab_tells_version_and_score(
    label_studio: LabelStudioServer, label_studio_client: LabelStudioClient, tmp_path: Path
) -> None:
    chromium = needs_program("chromium")
    client = label_studio_client
    project = client.create_project("Sounds around the house", CHOICES)
    (task,) = client.import_files(project.id, [barking(tmp_path / "clip.wav")])
    client.push_predictions(project.id, [prediction(task, MODEL_VERSION, score=0.91, choice="rain")])
    client.set_model_version(project.id, MODEL_VERSION)
    out = tmp_path / "suggestion.png"
    facts = screenshot_task(
        label_studio.url, label_studio.email, label_studio.password, project.id, task, out, chromium=chromium
    )
    assert facts.ticked == ("rain",)
    assert facts.shows_version(MODEL_VERSION)
    assert not facts.shows_version("clap-other")
    assert facts.score_shown == "91.00%"
    assert facts.clip_s == pytest.approx(2.0, abs=0.05)
    assert out.read_bytes().startswith(b"\x89PNG")
    client.delete_project(project.id)


def barking(path: Path) -> Path:
    """Two seconds of 16 kHz mono: four short bursts."""
    rate = 16_000
    with wave.open(str(path), "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(rate)
        for i in range(2 * rate):
            burst = max(0.0, math.sin(2 * math.pi * 2 * i / rate)) ** 4
            audio.writeframesraw(
                int(20_000 * burst * math.sin(2 * math.pi * 440 * i / rate)).to_bytes(2, "little", signed=True)
            )
    return path
