"""PredictJobs: from claimed jobs to stored predictions, each job ended by itself."""

from __future__ import annotations

import numpy as np
import pytest

from clapboard.labels.label_config import parse_label_config
from clapboard.labels.label_space import label_space_of
from clapboard.queue.celery_app import INTERACTIVE, PredictPayload
from clapboard.store.jobs import JobRequest, State
from clapboard.store.tasks import KnownTask
from clapboard.store.versions import Version
from clapboard.suggest import prediction, scoring
from clapboard.suggest.head import ZERO_SHOT, ControlHead, Head, zero_shot_head
from tests.workers.conftest import LABELS, SPACE_ID, CountingEncoder, World
from workers.predict_jobs import HELD_OUT, PredictJobs


class Owed:
    """Counts how often something became owed."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def owed() -> Owed:
    return Owed()


@pytest.fixture
def predict_jobs(world: World, owed: Owed) -> PredictJobs:
    return PredictJobs(world.store, world.stage, world.encoders, world.heads, on_owed=owed)


def states(world: World) -> dict[int, State]:
    return {job.task: job.state for job in world.store.jobs.newest(limit=1000)}


def test_a_batch_with_bad_clips_finishes_the_others_and_keeps_each_reason(
    world: World, predict_jobs: PredictJobs, owed: Owed
) -> None:
    world.ask(1, 4)
    world.ask(2, path="corrupt/{}.wav")
    world.ask(3, path="missing/{}.wav")
    predict_jobs.run(world.claimed())
    assert states(world) == {1: State.DONE, 2: State.FAILED, 3: State.FAILED, 4: State.DONE}
    reasons = {job.task: (job.error_code, job.error) for job in world.store.jobs.newest(state=State.FAILED)}
    assert reasons[2][0] == "audio"
    assert reasons[3][0] == "source"
    assert "HTTP 404" in str(reasons[3][1])
    assert world.predicted(1, 2, 3, 4) == [1, 4]
    assert owed.count == 0


def test_the_prediction_is_that_of_the_embeddings_and_the_labels(world: World, predict_jobs: PredictJobs) -> None:
    world.ask(1)
    predict_jobs.run(world.claimed())
    (recording,) = world.store.embeddings.recordings([world.sources.key(world.audio.url("1/clip.wav"))]).values()
    identity = world.encoder.identity
    vectors = world.store.embeddings.get([recording], identity.version, identity.dtype)[recording.sha256]
    weights = prediction.compute_class_weights(LABELS, world.encoder.embed_texts)
    head = zero_shot_head(LABELS, weights, identity.logit_scale)
    expected = prediction.predict(LABELS, vectors, head, world.version)
    found = world.prediction(1)
    assert (found.result, found.score) == (expected.result, pytest.approx(expected.score))


def test_only_what_is_to_be_pushed_counts_as_owed(world: World, predict_jobs: PredictJobs, owed: Owed) -> None:
    world.ask(1, 2)
    world.ask(3, push=True)
    predict_jobs.run(world.claimed())
    assert owed.count == 1
    assert [one.task for one in world.store.predictions.take_for_push(10, 30)] == [3]


def test_class_weights_are_the_unit_mean_of_each_labels_prompts() -> None:
    encoder = CountingEncoder()
    label_space = label_space_of(["dog bark", "rain"])
    weights = prediction.compute_class_weights(label_space, encoder.embed_texts)
    (control,) = label_space.controls
    for row, label in zip(weights, control.labels, strict=False):
        assert np.allclose(row, scoring.mean_direction(encoder.embed_texts(label.prompts)))
    assert np.allclose(np.linalg.norm(weights, axis=1), 1.0)
    assert weights.shape == (3, 4)


def test_a_label_space_that_is_unknown_or_broken_fails_its_own_jobs(world: World, predict_jobs: PredictJobs) -> None:
    world.store.catalog.put_label_space("broken", "<View/>")
    world.ask(1, space_id="unknown")
    world.ask(2, space_id="broken")
    world.ask(3)
    predict_jobs.run(world.claimed())
    assert states(world) == {1: State.FAILED, 2: State.FAILED, 3: State.DONE}


def test_a_job_of_another_encoder_gets_the_version_of_the_loaded_one(world: World, predict_jobs: PredictJobs) -> None:
    world.version = "older.zero-shot.00000000"
    world.ask(1)
    predict_jobs.run(world.claimed())
    made_by = prediction.model_version(world.encoder.identity, LABELS)
    assert world.store.predictions.model_versions(1) == [made_by]


def test_a_job_that_was_queued_before_there_were_heads_is_zero_shots(world: World, predict_jobs: PredictJobs) -> None:
    uri = world.audio.url("1/clip.wav")
    payload = {"kind": "predict", "uri": uri, "uri_key": world.sources.key(uri), "head_id": SPACE_ID}
    world.store.jobs.add(INTERACTIVE, [JobRequest("predict", 1, 1, world.version, payload)])
    predict_jobs.run(world.claimed())
    assert states(world) == {1: State.DONE}
    assert world.predicted(1) == [1]


def test_jobs_of_an_encoder_that_cannot_be_loaded_fail_alone(world: World, predict_jobs: PredictJobs) -> None:
    world.ask(1)
    uri = world.audio.url("2/clip.wav")
    payload = PredictPayload(
        uri=uri, uri_key=world.sources.key(uri), encoder="models/1/gone", space_id=SPACE_ID, head="zero-shot"
    )
    world.store.jobs.add(INTERACTIVE, [JobRequest("predict", 1, 2, "tuned", payload.model_dump())])
    predict_jobs.run(world.claimed())
    assert states(world) == {1: State.DONE, 2: State.FAILED}
    assert world.store.jobs.newest(state=State.FAILED)[0].error_code == "model"


def test_a_fitted_head_is_what_scores_where_the_job_names_one(world: World, predict_jobs: PredictJobs) -> None:
    identity = world.encoder.identity
    sure = Head((ControlHead(np.zeros(4, np.float32), np.zeros((2, 4), np.float32), np.array([0, 9], np.float32)),))
    name = prediction.model_version(identity, LABELS, sure.name)
    world.store.versions.put(Version(1, name, "counting", identity.version, sure.name, SPACE_ID), sure)
    uri = world.audio.url("1/clip.wav")
    payload = PredictPayload(
        uri=uri, uri_key=world.sources.key(uri), encoder="counting", space_id=SPACE_ID, head=sure.name
    )
    world.store.jobs.add(INTERACTIVE, [JobRequest("predict", 1, 1, name, payload.model_dump())])
    predict_jobs.run(world.claimed())
    world.version = name
    (result,) = world.prediction(1).result
    assert result["value"] == {"choices": ["rain"]}
    assert result["score"] == pytest.approx(1 / (1 + np.exp(-9)))


def test_work_whose_lease_was_lost_is_discarded(world: World, predict_jobs: PredictJobs, owed: Owed) -> None:
    world.ask(1, push=True)
    jobs = world.claimed()
    world.store.jobs.requeue_lost(lease_s=-1)
    predict_jobs.run(jobs)
    assert states(world) == {1: State.QUEUED}
    assert world.predicted(1) == []
    predict_jobs.run(world.claimed())
    assert states(world) == {1: State.DONE}
    assert owed.count == 1


def test_an_unexpected_failure_of_one_job_leaves_its_neighbours_alone(world: World, predict_jobs: PredictJobs) -> None:
    world.ask(1, 2, 3)
    with world.store.database.write() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON predictions WHEN NEW.task = 2 "
            "BEGIN SELECT RAISE(ABORT, 't0ken'); END"
        )
    predict_jobs.run(world.claimed())
    assert states(world) == {1: State.DONE, 2: State.QUEUED, 3: State.DONE}
    (failed,) = world.store.jobs.newest(state=State.QUEUED)
    assert (failed.error_code, failed.attempts) == ("internal", 1)
    assert "t0ken" not in str(failed.error)


def test_a_failed_forward_pass_is_tried_again(world: World, predict_jobs: PredictJobs) -> None:
    world.ask(1)
    world.encoder.failures = [RuntimeError("CUDA error: a cosmic ray")]
    predict_jobs.run(world.claimed())
    assert states(world) == {1: State.QUEUED}
    with world.store.database.write() as connection:
        connection.exec_driver_sql("UPDATE jobs SET not_before = 0")
    predict_jobs.run(world.store.jobs.claim("test", INTERACTIVE, 10))
    assert states(world) == {1: State.DONE}


def keep(world: World, task: int, path: str, *, held_out: bool) -> None:
    uri = world.audio.url(path)
    world.store.tasks.put(1, [KnownTask(task, uri, world.sources.key(uri), uri, held_out)])


def test_a_sound_that_is_held_out_gets_no_suggestion_under_any_address(
    world: World, predict_jobs: PredictJobs, owed: Owed
) -> None:
    keep(world, 1, "7/a.wav", held_out=True)
    keep(world, 2, "7/b.wav", held_out=False)
    keep(world, 3, "8/c.wav", held_out=False)
    world.ask(1, path="7/a.wav")
    world.ask(2, path="7/b.wav", push=True)
    world.ask(3, path="8/c.wav")
    for _ in range(2):  # all at once, or one after the other as below
        predict_jobs.run(world.claimed())
    assert world.predicted(1, 2, 3) == [3]
    assert states(world) == {1: State.DONE, 2: State.DONE, 3: State.DONE}
    assert {job.error for job in world.store.jobs.newest() if job.task < 3} == {HELD_OUT}
    assert owed.count == 0
    keep(world, 4, "7/d.wav", held_out=False)  # turns up later
    world.ask(4, path="7/d.wav", push=True)
    predict_jobs.run(world.claimed())
    assert world.predicted(4) == []


def test_what_was_suggested_before_anybody_could_know_is_known_to_be_so(
    world: World, predict_jobs: PredictJobs
) -> None:
    keep(world, 1, "7/a.wav", held_out=True)
    keep(world, 2, "7/b.wav", held_out=False)
    world.ask(2, path="7/b.wav")
    predict_jobs.run(world.claimed())
    assert world.predicted(2) == [2]
    world.ask(1, path="7/a.wav")
    predict_jobs.run(world.claimed())
    (sound,) = world.store.tasks.suggested_contents(1)
    assert world.store.tasks.get(1, [1])[1].content == sound


REGIONS = """<View><Audio name="audio" value="$audio"/>
<Labels name="ev" toName="audio"><Label value="bark"/></Labels></View>"""


def test_a_project_with_labels_gets_regions_from_the_frames_that_its_job_stores(
    world: World, predict_jobs: PredictJobs
) -> None:
    space = parse_label_config(REGIONS)
    space_id, identity = prediction.space_id(space), world.encoder.identity
    world.store.catalog.put_label_space(space_id, REGIONS)
    world.version = prediction.model_version(identity, space)
    world.ask(1, space_id=space_id, frames=True)
    predict_jobs.run(world.claimed())
    (recording,) = world.store.embeddings.recordings([world.sources.key(world.audio.url("1/clip.wav"))]).values()
    frames = world.store.frames.get(recording, identity.version, identity.dtype)
    assert frames is not None
    head = world.store.versions.head(identity.version, space_id, ZERO_SHOT)  # for the backend, which has no encoder
    expected = prediction.predict(space, frames.window_embeddings[:1], head, world.version, frames)
    found = world.prediction(1)
    assert (found.result, found.score) == (expected.result, pytest.approx(expected.score))
    assert 0.0 < found.score <= 1.0


def test_a_job_whose_frames_are_missing_is_tried_again(world: World, predict_jobs: PredictJobs) -> None:
    space_id = prediction.space_id(parse_label_config(REGIONS))
    world.store.catalog.put_label_space(space_id, REGIONS)
    world.ask(1, space_id=space_id)
    predict_jobs.run(world.claimed())
    (job,) = world.store.jobs.newest()
    assert "frames aren't stored" in str(job.error)
