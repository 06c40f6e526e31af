"""What people wrote and chose in a real Label Studio becomes a data set that can be heard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from clapboard.label_studio.client import LabelStudioClient
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.tasks import KnownTask
from demo.label_studio_server import LabelStudioServer
from tests.support.fixtures_label_studio import settings_for
from tests.training.corpus.recorded import noise, record
from training.corpus.build import Plan, build
from training.corpus.filters import Rules
from training.corpus.projects import LabelStudioAccess
from training.corpus.sources import open_source
from training.corpus.stream import PairStream

pytestmark = pytest.mark.e2e

CONFIG = """<View>
  <Audio name="audio" value="$audio"/>
  <TextArea name="caption" toName="audio"/>
  <Choices name="clip" toName="audio"><Choice value="dog"/><Choice value="rain"/></Choices>
</View>"""
WRITTEN = {"from_name": "caption", "to_name": "audio", "type": "textarea", "value": {"text": ["a dog barks", "twice"]}}
CHOSEN = {"from_name": "clip", "to_name": "audio", "type": "choices", "value": {"choices": ["rain"]}}


def test_annotations_and_uploads_become_a_data_set(
    label_studio: LabelStudioServer,
    label_studio_client: LabelStudioClient,
    label_studio_api: httpx.Client,
    tmp_path: Path,
) -> None:
    project = label_studio_client.create_project("Captions", CONFIG).id
    files = [record(tmp_path / f"{number}.wav", number) for number in range(6)]
    written, chosen, bulk, skipped, aside, _ = tasks = label_studio_client.import_files(project, files)

    def say(task: int, *result: dict[str, Any], **fields: Any) -> None:
        body = {"result": list(result), "lead_time": 2.0} | fields
        label_studio_api.post(f"/api/tasks/{task}/annotations/", json=body).raise_for_status()

    say(written, WRITTEN, CHOSEN)
    say(chosen, CHOSEN)
    say(skipped, was_cancelled=True)
    say(aside, WRITTEN)
    label_studio_client.push_predictions(
        project, [{"task": bulk, "model_version": "v1", "score": 0.5, "result": [CHOSEN | {"id": "c"}]}]
    )
    action = {"selectedItems": {"all": False, "included": [bulk]}, "project": project, "model_version": "v1"}
    params: dict[str, Any] = {"id": "predictions_to_annotations", "project": project}
    label_studio_api.post("/api/dm/actions/", params=params, json=action).raise_for_status()

    settings = settings_for(label_studio.url, label_studio.token, MODEL_DIR=tmp_path / "state")
    store = Store.open(settings)
    store.tasks.put(project, [KnownTask(task, "", "", "", task == aside) for task in tasks])
    access = LabelStudioAccess(settings, store, label_studio_client, AudioSources(settings))
    (manifest,) = build(
        [open_source(f"project:{project}", lambda: access)], tmp_path / "set", Plan(Rules(languages=()))
    )
    store.close()
    label_studio_client.delete_project(project)

    assert manifest.dropped == {"set_aside": 1, "accepted_in_bulk": 1, "missing_text": 1}
    heard = {sample.captions: sample for sample in PairStream(tmp_path / "set", seed=0).epoch(0)}
    assert {captions: sample.tags for captions, sample in heard.items()} == {
        ("a dog barks", "twice"): ("rain",),
        (): ("rain",),
    }
    assert np.array_equal(heard[()].waveform, noise(1))
