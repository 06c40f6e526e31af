"""From an annotation to changed suggestions: the whole way, through a real Label Studio on the same machine."""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np

from clapboard.label_studio.client import LabelStudioClient
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.embeddings import Recording
from clapboard.suggest.prediction import shown_name
from demo.clapboard_up import ClapboardUp
from demo.clips import label_config
from demo.label_studio_server import LabelStudioServer

LABELS = ("bearing", "cavitation", "healthy", "misaligned", "unbalanced")
PAUSE_S = 5.0
"""Between two annotations: somebody listens to a clip, and Label Studio rests."""


def accept_seconds(*, num_tasks: int, rounds: int) -> tuple[float, float]:
    """Median seconds from sending an annotation until Label Studio shows new predictions for all open tasks.

    The peer is Label Studio's own import of as many predictions, by its API. No audio is heard: embeddings are what
    a head is fitted on, and five heaps of them, about which the texts say nothing, are put into the store.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with LabelStudioServer(folder / "label-studio") as server, ClapboardUp(server, folder / "clapboard") as up:
            settings = up.settings
            with closing(Store.open(settings)) as store, LabelStudioClient(settings) as client:
                project = client.create_project("Accepting", label_config(list(LABELS))).id
                addresses = [f"https://host.example/{number}.wav" for number in range(num_tasks)]
                tasks = client.import_tasks(project, [{"audio": address} for address in addresses])
                heaps = embed_heaps(store, settings, addresses)
                for command in ("connect", "prelabel"):
                    up.run(command, "--project", str(project), CLAPBOARD_TEST_SHARE="0")
                truth = {task: LABELS[heap] for task, heap in zip(tasks, heaps, strict=True)}
                with httpx.Client(base_url=server.url, headers={"Authorization": f"Token {server.token}"}) as api:
                    return _timed(api, client, store, project, truth, rounds)


def _timed(
    api: httpx.Client, client: LabelStudioClient, store: Store, project: int, truth: dict[int, str], rounds: int
) -> tuple[float, float]:
    ours, peer = [], []
    for number, (task, label) in enumerate(list(truth.items())[: 4 * rounds]):
        before = _promoted(store, project)
        value = {"choices": [label]}
        result = {"from_name": "sound", "to_name": "audio", "type": "choices", "value": value}
        began = time.perf_counter()
        api.post(f"/api/tasks/{task}/annotations", json={"result": [result], "lead_time": 4.0}).raise_for_status()
        _wait_until_learnt(store, project)
        spent = time.perf_counter() - began
        after = _promoted(store, project)
        if after != before:  # else the head says nothing new
            ours.append(spent)
            held = client.model_versions(project).get(shown_name(after), 0)
            if held < len(truth) - number - 1:
                raise RuntimeError(f"Label Studio holds {held} predictions of {after}")
            peer.append(_import_seconds(client, project, list(truth)))
        if len(ours) == rounds:
            break
        time.sleep(PAUSE_S)
    return statistics.median(ours), statistics.median(peer)


def _import_seconds(client: LabelStudioClient, project: int, tasks: list[int]) -> float:
    """How long Label Studio takes for as many predictions, which are taken out again."""
    value = {"choices": [LABELS[0]]}
    result = [{"id": "r", "from_name": "sound", "to_name": "audio", "type": "choices", "value": value, "score": 0.5}]
    items = [{"task": task, "model_version": "bench", "score": 0.5, "result": result} for task in tasks]
    began = time.perf_counter()
    client.push_predictions(project, items, known_absent=True)
    spent = time.perf_counter() - began
    client.delete_model_version(project, "bench")
    return spent


def _promoted(store: Store, project: int) -> str:
    version = store.versions.promoted(project)
    return version.model_version if version else ""


def _wait_until_learnt(store: Store, project: int) -> None:
    """Until the newest learning has ended, and all suggestions that it changes have reached Label Studio."""
    newest = next(job for job in store.jobs.newest(project=project, limit=20) if job.kind == "learn")
    while store.jobs.open_ids([newest.id]) or store.displays.get(project).model_version or store.predictions.num_owed():
        time.sleep(0.005)


def embed_heaps(store: Store, settings: Settings, addresses: list[str]) -> list[int]:
    """What a worker would have done with each recording; the heap that it belongs to."""
    encoder: Encoder | None = store.catalog.encoder(settings.model)
    assert encoder is not None
    rng, sources = np.random.default_rng(0), AudioSources(settings)
    centres = rng.normal(size=(len(LABELS), encoder.dim))
    heaps = rng.integers(len(LABELS), size=len(addresses)).tolist()
    for number, (address, heap) in enumerate(zip(addresses, heaps, strict=True)):
        vector = (centres[heap] + 1.5 * rng.normal(size=encoder.dim)).astype(np.float32)
        store.embeddings.put_recording(sources.key(address), Recording(f"{number:064x}", 1, 10.0))
        store.embeddings.put(
            f"{number:064x}", encoder.version, encoder.dtype, 0, (vector / np.linalg.norm(vector))[None]
        )
    return [int(heap) for heap in heaps]
