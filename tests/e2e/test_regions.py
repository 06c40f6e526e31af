"""Suggested regions in a real Label Studio, whose page and storage leave them alone, and people who change them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from playwright.sync_api import Page

from clapboard.feedback.entries import entries
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.links import task_url
from clapboard.labels.label_config import parse_label_config
from clapboard.store.inbox import Event
from clapboard.suggest.head import ControlHead, FrameHead, Head
from clapboard.suggest.prediction import predict
from clapboard.suggest.scoring import Array
from demo.browser import logged_in, wait_for_waveform
from demo.label_studio_server import LabelStudioServer
from tests.support.programs import needs_program
from tests.support.waiting import WAIT_S, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

DURATION_S = 20.0
CONFIG = """<View><Audio name="audio" value="$audio"/>
<Labels name="ev" toName="audio" merge_gap="0.2"><Label value="bark"/><Label value="rain"/></Labels>
<Labels name="who" toName="audio"><Label value="far"/></Labels>
<Choices name="clip" toName="audio"><Choice value="dog"/><Choice value="wind"/></Choices>
<Choices name="quality" toName="audio" perRegion="true"><Choice value="clean"/><Choice value="noisy"/></Choices>
<Rating name="sure" toName="audio" perRegion="true"/></View>"""
SPACE = parse_label_config(CONFIG)
HEARD = {"bark": ((1.0, 3.0), (4.0, 6.0), (7.0, 9.0), (10.0, 12.0)), "far": ((13.0, 15.0),)}


@dataclass(frozen=True)
class Frames:
    """A recording in which bark and far are heard at known times, each along an axis of its own."""

    frames: Array
    frame_s: float = 0.25
    duration_s: float = DURATION_S


def suggestion() -> list[dict[str, Any]]:
    """What Clapboard suggests for such a recording."""
    rows = np.tile(np.eye(4, dtype=np.float32)[3], (round(DURATION_S / 0.25), 1))
    for axis, label in ((0, "bark"), (2, "far")):
        for start_s, end_s in HEARD[label]:
            rows[round(start_s / 0.25) : round(end_s / 0.25)] = np.eye(4, dtype=np.float32)[axis]
    eye = 30 * np.eye(4, dtype=np.float32)

    def of(*axes: int) -> ControlHead:
        return ControlHead(np.zeros(4, np.float32), eye[list(axes)], np.full(len(axes), -15.0, np.float32))

    nothing_learnt = [np.full((number, 3), np.nan, np.float32) for number in (2, 1, 2)]
    on_frames = zip((of(0, 1), of(2), of(0, 3)), nothing_learnt, strict=True)
    head = Head((of(0, 1),), tuple(FrameHead(*pair) for pair in on_frames))
    return predict(SPACE, np.eye(4, dtype=np.float32)[:1], head, "v1", Frames(rows)).result


@pytest.fixture(scope="module")
def page(label_studio: LabelStudioServer) -> Iterator[Page]:
    with logged_in(
        label_studio.url, label_studio.email, label_studio.password, chromium=needs_program("chromium")
    ) as page:
        page.set_default_timeout(1000 * WAIT_S)
        yield page


class Waveform:
    """The waveform of an open task, by seconds of the recording."""

    def __init__(self, page: Page) -> None:
        self._page = page
        box = page.locator("#waveform-layer-main").bounding_box()
        assert box
        self._left, self._width, self._middle = box["x"], box["width"], box["y"] + 0.4 * box["height"]

    def click(self, at_s: float) -> None:
        self._page.mouse.click(self._x(at_s), self._middle)

    def drag(self, from_s: float, to_s: float) -> None:
        self._page.mouse.move(self._x(from_s), self._middle)
        self._page.mouse.down()
        self._page.mouse.move(self._x((from_s + to_s) / 2), self._middle, steps=4)
        self._page.mouse.move(self._x(to_s), self._middle, steps=4)
        self._page.mouse.up()

    def _x(self, at_s: float) -> float:
        return float(self._left + self._width * at_s / DURATION_S)


def test_regions_are_stored_as_the_editor_stores_its_own_and_the_ledger_tells_what_became_of_each(
    label_studio: LabelStudioServer, label_studio_client: LabelStudioClient, label_studio_api: httpx.Client, page: Page
) -> None:
    client, api, suggested = label_studio_client, label_studio_api, suggestion()
    project = client.create_project("Regions", CONFIG).id
    file = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, round(DURATION_S * 8000))
    soundfile.write(file, noise, 8000, format="WAV")
    upload = {"file": ("yard.wav", file.getvalue())}
    api.post(f"/api/projects/{project}/import", files=upload).raise_for_status()
    (task,) = (each.id for each in client.tasks(project, page_size=10))
    body = {"task": task, "model_version": "v1", "score": 0.5, "result": suggested}
    prediction = api.post("/api/predictions/", json=body).raise_for_status().json()
    assert prediction["result"] == suggested
    api.patch(f"/api/projects/{project}", json={"model_version": "v1"}).raise_for_status()

    page.goto(task_url(label_studio.url, project, task), wait_until="domcontentloaded")
    wait_for_waveform(page)
    listed = page.locator(".lsf-outliner-item")
    wait_for(lambda: listed.count() == 5, "the regions aren't there when the task opens")
    wave = Waveform(page)
    wave.drag(4.8, 5.8)  # the second bark is moved
    page.keyboard.press("Escape")
    wave.click(8.0)  # the third is deleted, and comes back
    page.keyboard.press("Backspace")
    wait_for(lambda: listed.count() == 4, "it isn't deleted")
    page.keyboard.press("Control+z")
    wait_for(lambda: listed.count() == 5, "it doesn't come back")
    wave.click(8.0)
    page.keyboard.press("Backspace")
    wait_for(lambda: listed.count() == 4, "it isn't deleted")
    wave.click(11.0)  # the fourth is relabelled
    page.locator(".lsf-label", has_text="rain").first.click()
    page.keyboard.press("Escape")
    page.locator(".lsf-label", has_text="rain").first.click()  # one is added
    wave.drag(16.0, 18.0)
    wait_for(lambda: listed.count() == 5, "none is added")
    with page.expect_response(lambda answer: answer.request.method == "POST" and "/annotations" in answer.url) as sent:
        page.get_by_test_id("bottombar-submit-button").click()
    annotation = sent.value.json()

    stored = {(item["from_name"], item["id"]): item for item in annotation["result"]}
    ours = {(item["from_name"], item["id"]): item for item in suggested}
    first, far = suggested[1], suggested[-2]
    for item in (first, suggested[2], far, suggested[0]):  # left alone: all of it is as it was
        assert {key: stored[item["from_name"], item["id"]][key] for key in item} == item
    (drawn,) = (item for key, item in stored.items() if key not in ours and item["type"] == "labels")
    assert {*first} | {"origin"} == {*drawn} | {"score"}
    assert {*first["value"]} == {*drawn["value"]}
    assert (drawn["value"]["channel"], drawn["original_length"]) == (first["value"]["channel"], DURATION_S)

    beside = {str(task): {"model_version": "v1", "score": 0.5, "result": suggested}}
    event = {"annotation": annotation | {"task": task, "project": project}, "project": {"id": project}}
    told = entries(Event(1, 0.0, "ANNOTATION_CREATED", project, event, beside))
    fates = [(entry.outcome, entry.labels, round(entry.iou or 0, 1)) for entry in told if entry.control == "ev"]
    assert fates == [
        ("accepted", ["bark"], 1.0),
        ("moved", ["bark"], pytest.approx(0.3, abs=0.11)),
        ("relabelled", ["rain"], 1.0),
        ("added", ["rain"], 0.0),
        ("deleted", [], 0.0),
    ]
    assert {entry.outcome for entry in told if entry.control in ("who", "clip")} == {"accepted"}
    client.delete_project(project)
