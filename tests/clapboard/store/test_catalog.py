from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from clapboard.errors import NotFoundError
from clapboard.store import Store
from clapboard.store.catalog import FORGET_WORKER_S, Encoder, Project
from tests.support.together import together

ENCODER = Encoder("laion/clap-htsat-unfused", "0123456789ab", "float32", 512, 14.285714285714286)
CONFIG = "<View><Audio name='audio' value='$audio'/><!-- ключ «1» --></View>"


def test_the_encoder_announced_last_is_the_models(store: Store) -> None:
    assert store.catalog.encoder(ENCODER.model) is None
    store.catalog.announce_encoder(ENCODER)
    assert store.catalog.encoder(ENCODER.model) == ENCODER
    newer = replace(ENCODER, version="ba9876543210", dtype="bfloat16")
    store.catalog.announce_encoder(newer)
    assert store.catalog.encoder(ENCODER.model) == newer
    assert store.catalog.encoder("mini") is None


def test_workers_are_those_heard_of_lately(store: Store, clock: Callable[..., float]) -> None:
    store.catalog.worker_alive("b", "mini", "cpu", "batch")
    started = clock()
    clock.advance(10)
    store.catalog.worker_alive("a", "mini", "cuda:0", "interactive,batch")
    assert [worker.name for worker in store.catalog.workers(5)] == ["a"]
    assert [worker.name for worker in store.catalog.workers(10)] == ["a", "b"]
    store.catalog.worker_alive("b", "mini", "cpu", "batch")
    assert [(w.name, w.started_at, w.heartbeat_at) for w in store.catalog.workers(5)][1] == ("b", started, clock())


def test_a_worker_that_stopped_is_gone_and_one_silent_for_a_day_is_forgotten(
    store: Store, clock: Callable[..., float]
) -> None:
    store.catalog.worker_alive("silent", "mini", "cpu", "batch")
    store.catalog.worker_alive("stopped", "mini", "cpu", "batch")
    store.catalog.worker_gone("stopped")
    assert [worker.name for worker in store.catalog.workers(1)] == ["silent"]
    clock.advance(FORGET_WORKER_S + 1)
    store.catalog.worker_alive("new", "mini", "cpu", "batch")
    assert [worker.name for worker in store.catalog.workers(FORGET_WORKER_S * 2)] == ["new"]


def test_a_project_stays_connected_when_its_config_changes(store: Store) -> None:
    with pytest.raises(NotFoundError, match=r"Project 7 .*clapboard connect --project 7"):
        store.catalog.project(7)
    store.catalog.put_project(7, CONFIG, "v1")
    assert store.catalog.project(7) == Project(7, CONFIG, "v1", connected=False, test_share=0.0)
    assert store.catalog.connected_projects() == {}
    store.catalog.set_connected(7, 0.25)
    store.catalog.put_project(7, "<View/>", "v2")
    connected = Project(7, "<View/>", "v2", connected=True, test_share=0.25)
    assert store.catalog.project(7) == connected
    assert store.catalog.connected_projects() == {7: connected}


def test_the_share_of_tasks_held_out_is_decided_when_a_project_is_first_connected(store: Store) -> None:
    for project in (7, 8):
        store.catalog.put_project(project, CONFIG, "v1")
    store.catalog.set_connected(7, 0.25)
    store.catalog.set_connected(8)
    for project in (7, 8):
        store.catalog.set_connected(project, 0.5)
    assert {number: known.test_share for number, known in store.catalog.connected_projects().items()} == {7: 0.25, 8: 0}


def test_every_announced_encoder_is_found_by_its_model(store: Store) -> None:
    assert store.catalog.encoders() == {}
    tuned = replace(ENCODER, model="models/1/mini-tuned-4", version="fedcba9876543210")
    for encoder in (replace(ENCODER, version="older"), ENCODER, tuned):
        store.catalog.announce_encoder(encoder)
    assert store.catalog.encoders() == {ENCODER.model: ENCODER, tuned.model: tuned}


def test_a_label_config_is_found_by_its_fingerprint(store: Store) -> None:
    with pytest.raises(NotFoundError, match="ffff"):
        store.catalog.label_config("ffff")
    store.catalog.put_label_space("ffff", CONFIG)
    store.catalog.put_label_space("ffff", CONFIG)
    assert store.catalog.label_config("ffff") == CONFIG


def test_class_weights_come_back_bit_for_bit(store: Store) -> None:
    matrix = np.random.default_rng(5).standard_normal((7, 16)).astype(np.float32)
    store.catalog.put_label_space("ffff", CONFIG)
    assert store.catalog.class_weights("e1", "ffff") is None
    store.catalog.put_class_weights("e1", "ffff", np.asfortranarray(matrix))
    store.catalog.put_class_weights("e1", "ffff", matrix + 1)
    found = store.catalog.class_weights("e1", "ffff")
    assert found is not None
    np.testing.assert_array_equal(found, matrix)
    assert store.catalog.class_weights("e2", "ffff") is None


def test_concurrent_announcements_leave_one_row_each(open_store: Callable[[], Store]) -> None:
    stores = [open_store() for _ in range(4)]

    def announce(store: Store) -> None:
        store.catalog.announce_encoder(ENCODER)
        store.catalog.put_project(1, CONFIG, "v1")
        store.catalog.put_label_space("ffff", CONFIG)
        store.catalog.worker_alive("w", "mini", "cpu", "batch")

    together([lambda store=store: announce(store) for store in stores])
    assert stores[0].catalog.encoder(ENCODER.model) == ENCODER
    assert stores[0].catalog.project(1).label_config == CONFIG
    assert len(stores[0].catalog.workers(1)) == 1
