"""What triggers count is what there is, whatever changed it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from sqlalchemy import delete, select

from clapboard.errors import SourceError
from clapboard.store import Store
from clapboard.store.jobs import JobRequest
from clapboard.store.predictions import StoredPrediction
from clapboard.store.schema import job_tallies, jobs, prediction_tallies, predictions
from tests.support.together import together

VERSIONS = ("v1", "v2")


def test_tallies_are_what_there_is_after_whatever_happened(store: Store, open_store: Callable[[], Store]) -> None:
    together([lambda seed=seed: _work(open_store(), seed) for seed in range(4)])
    _work(store, 4)
    assert _counted_jobs(store) == _jobs(store)
    assert _counted_predictions(store) == _predictions(store)
    with store.database.write() as connection:
        connection.execute(delete(jobs).where(jobs.c.id % 2 == 0))
    store.predictions.forget_names(1, ["v1"])
    assert _counted_jobs(store) == _jobs(store)
    assert _counted_predictions(store) == _predictions(store)
    assert store.predictions.model_versions(1) == ["v2"]
    assert sum(store.jobs.counts().values()) == sum(_jobs(store).values())


def _work(store: Store, seed: int) -> None:
    choose = random.Random(seed)
    for _ in range(12):
        requests = [
            JobRequest(choose.choice(["predict", "predict", "train"]), 1, choose.randrange(9), choose.choice(VERSIONS))
            for _ in range(4)
        ]
        store.jobs.add(choose.choice(["batch", "interactive"]), requests)
        for job in store.jobs.claim(f"w{seed}", choose.choice(["batch", "interactive"]), 3):
            match choose.randrange(4):
                case 0:
                    store.jobs.fail(job, SourceError("gone"))
                case 1:
                    store.jobs.put_off(job, 0.0, "later")
                case _:
                    store.finish_with_prediction(job, StoredPrediction(1, job.task, job.model_version, "u", 0.5, []))
        store.jobs.record_failure("train", JobRequest("train", 1), SourceError("refused"))
        store.predictions.owe(1, [choose.randrange(9)], choose.choice(VERSIONS))
        taken = store.predictions.take_for_push(2, 60.0)
        if taken:
            store.predictions.pushed(1, [prediction.task for prediction in taken], taken[0].model_version)


def _jobs(store: Store) -> Counter[tuple[object, ...]]:
    with store.database.read() as connection:
        rows = connection.execute(select(jobs)).all()
    return Counter(
        (
            *(row.queue, row.kind, row.model_version, bool(row.push), row.state),
            "" if row.state != "failed" or (row.kind == "train" and row.started_at is None) else row.error_code,
        )
        for row in rows
    )


def _counted_jobs(store: Store) -> Counter[tuple[object, ...]]:
    counted: Counter[tuple[object, ...]] = Counter()
    with store.database.read() as connection:
        for row in connection.execute(select(job_tallies)):
            counted[row.queue, row.kind, row.model_version, bool(row.push), row.state, row.failure] += row.num
    return +counted


def _predictions(store: Store) -> Counter[tuple[object, ...]]:
    with store.database.read() as connection:
        rows = connection.execute(select(predictions.c.model_version, predictions.c.delivery)).all()
    return Counter(map(tuple, rows))


def _counted_predictions(store: Store) -> Counter[tuple[object, ...]]:
    counted: Counter[tuple[object, ...]] = Counter()
    with store.database.read() as connection:
        for row in connection.execute(select(prediction_tallies)):
            counted[row.model_version, row.delivery] += row.num
    return +counted
