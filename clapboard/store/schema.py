"""The tables. Times are seconds since 1970; JSON columns hold only what Clapboard has written itself.

Who changes a table writes a revision, too: see CONTRIBUTING.md.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TextClause,
    event,
    text,
)

from clapboard.store.migrations.tallies import tally_triggers

WAITS_SINCE = "CASE WHEN not_before > created_at THEN not_before ELSE created_at END"
"""Since when a job has been waiting for a worker, or from when on it will."""

metadata = MetaData()

# SQLite assigns ids only in a column of type INTEGER.
_BigId = BigInteger().with_variant(Integer, "sqlite")

# The store's revision, see clapboard.store.migrations.
clapboard_revision = Table("clapboard_revision", metadata, Column("version_num", String(32), primary_key=True))

# What releases before Alembic look at; they refuse a store with a number higher than 4.
schema_versions = Table("schema_versions", metadata, Column("version", Integer, primary_key=True))

encoders = Table(
    "encoders",
    metadata,
    Column("model", String, primary_key=True),  # as in CLAPBOARD_MODEL
    Column("version", String, nullable=False),
    Column("dtype", String, nullable=False),
    Column("dim", Integer, nullable=False),
    Column("logit_scale", Float, nullable=False),
    Column("announced_at", Float, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("name", String, primary_key=True),
    Column("model", String, nullable=False),
    Column("device", String, nullable=False),
    Column("queues", String, nullable=False),
    Column("encoder", String, nullable=False, default=""),  # its version and dtype, as in jobs
    Column("computing", String, nullable=False, default="", server_default=""),  # by what it is computed, and why
    Column("started_at", Float, nullable=False),
    Column("heartbeat_at", Float, nullable=False),
)

projects = Table(
    "projects",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),  # Label Studio's
    Column("label_config", Text, nullable=False),
    Column("model_version", String, nullable=False),
    Column("connected", Boolean, nullable=False, default=False),  # `clapboard connect` was run
    Column("test_share", Float, nullable=False, default=0.0),  # of its tasks that are held out
    # The serving row of `versions`; empty: the zero-shot base model.
    Column("promoted", String, nullable=False, default=""),
    Column("pinned", String, nullable=False, default=""),  # the version that a person chose, see VersionStore.pin
    Column("pinned_after", BigInteger, nullable=False, default=0),  # the newest event of the inbox when it was pinned
    Column("updated_at", Float, nullable=False),
    Column("last_task", BigInteger, nullable=False, default=0),  # the newest that pre-labelling has seen
)

label_studios = Table(
    "label_studios",
    metadata,
    Column("url", String, primary_key=True),  # LABEL_STUDIO_URL
    Column("public_address", String, nullable=False),  # its LABEL_STUDIO_HOST
)

label_spaces = Table(
    "label_spaces",
    metadata,
    Column("space_id", String, primary_key=True),
    Column("label_config", Text, nullable=False),
)

class_weights = Table(
    "class_weights",
    metadata,
    Column("encoder_version", String, primary_key=True),
    Column("space_id", String, ForeignKey("label_spaces.space_id"), primary_key=True),
    Column("num_rows", Integer, nullable=False),
    Column("matrix", LargeBinary, nullable=False),  # [num_rows, D] float32
)

heads = Table(
    "heads",
    metadata,
    Column("encoder_version", String, primary_key=True),
    Column("space_id", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("content", LargeBinary, nullable=False),  # Head.to_bytes
)

versions = Table(
    "versions",
    metadata,
    Column("project", BigInteger, primary_key=True, autoincrement=False),
    Column("model_version", String, primary_key=True),
    Column("encoder", String, nullable=False),  # CLAPBOARD_MODEL's value, or a folder below MODEL_DIR
    Column("encoder_version", String, nullable=False),
    Column("head", String, nullable=False),
    Column("space_id", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("promoted_at", Float),  # the last time; null for a candidate that never was
    Column("manifest", JSON, nullable=False),  # what it was made from, and how the gate judged it
    Index("versions_by_promotion", "project", "promoted_at"),
)

# Scheduled work, which any worker may carry out.
plans = Table(
    "plans",
    metadata,
    Column("name", String, primary_key=True),
    Column("schedule", String, nullable=False),  # as the setting has it
    Column("next_at", Float, nullable=False),
    Column("last_at", Float),
)

# The lock on what a project shows. A row whose time has run out is free.
project_locks = Table(
    "project_locks",
    metadata,
    Column("project", BigInteger, primary_key=True, autoincrement=False),
    Column("holder", String, nullable=False),
    Column("held_until", Float, nullable=False),
)

# Projects and tasks that are to be left alone, see DepartureStore. Task 0 stands for the whole project.
departures = Table(
    "departures",
    metadata,
    Column("project", BigInteger, primary_key=True, autoincrement=False),
    Column("task", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String, nullable=False),
    Column("departed_at", Float, nullable=False),
)

tasks = Table(
    "tasks",
    metadata,
    Column("project", BigInteger, primary_key=True, autoincrement=False),
    Column("task", BigInteger, primary_key=True, autoincrement=False),
    Column("uri", Text, nullable=False),
    Column("uri_key", String, nullable=False),
    Column("source", String, nullable=False),  # the recording it was cut from, which is never split
    Column("set_aside", Boolean, key="held_out", nullable=False),  # drawn for the test split
    Column("draw", BigInteger, nullable=False),  # its place in a random order, see task_labels.draw
    Index("tasks_by_address", "uri_key", "project"),
    Index("tasks_by_draw", "project", "draw"),
)
# Those with audio in their address, see clapboard.store.inline_audio.
Index(
    "tasks_with_inline_audio",
    tasks.c.uri,
    sqlite_where=text("substr(uri, 1, 12) = 'data-sha256:'"),
    postgresql_where=text("substr(uri, 1, 12) = 'data-sha256:'"),
)

# The audio of `data:` URIs, once for all tasks and jobs that have it.
inline_audio = Table(
    "inline_audio",
    metadata,
    Column("key", String, primary_key=True),  # the URI's sha256
    Column("uri", Text, nullable=False),
    Column("unused_since", Float),  # since when no task has it, see Retention
)

tabs = Table(
    "tabs",
    metadata,
    Column("project", BigInteger, primary_key=True, autoincrement=False),
    Column("name", String, primary_key=True),
    Column("tab", BigInteger, nullable=False),  # Label Studio's id
)

recordings = Table(
    "recordings",
    metadata,
    Column("uri_key", String, primary_key=True),
    Column("sha256", String, nullable=False),
    Column("num_windows", Integer, nullable=False),
    Column("duration_s", Float, nullable=False),
    Column("damage", Text, nullable=False, default=""),  # how much of it can't be decoded, in words
    Column("reading", Integer, nullable=False, default=0),  # see embeddings.READING
    Column("unused_since", Float),  # since when no task has it, see Retention
    Index("recordings_by_content", "sha256"),
)

embeddings = Table(
    "embeddings",
    metadata,
    Column("id", _BigId, primary_key=True, autoincrement=True),  # ascending in the order of arrival, never reused
    Column("sha256", String, nullable=False),
    Column("encoder_version", String, nullable=False),
    Column("dtype", String, nullable=False),
    Column("window_index", Integer, nullable=False),
    Column("vector", LargeBinary, nullable=False),  # [D] float32, unit norm
    Index("embeddings_by_content", "sha256", "encoder_version", "dtype", "window_index", unique=True),
    Index("embeddings_by_encoder", "encoder_version", "dtype", "id"),
    sqlite_autoincrement=True,
)

# Of recordings in projects with controls about regions, in pieces, see FrameStore.
frames = Table(
    "frames",
    metadata,
    Column("sha256", String, primary_key=True),
    Column("encoder_version", String, primary_key=True),
    Column("dtype", String, primary_key=True),
    Column("piece_index", Integer, primary_key=True, autoincrement=False),
    Column("frame_s", Float, nullable=False),  # the length of a frame
    Column("first_frame", Integer, nullable=False),
    Column("vectors", LargeBinary, nullable=False),  # [n, D] float16, unit norm
    Column("levels", LargeBinary, nullable=False),  # [m, 16] int8, in dB
    Column("start_s", Float, nullable=False),  # of the window that the piece comes from
    Column("end_s", Float, nullable=False),
    Column("window_vector", LargeBinary, nullable=False),  # [D] float16, unit norm
)

predictions = Table(
    "predictions",
    metadata,
    Column("project", BigInteger, primary_key=True, autoincrement=False),
    Column("task", BigInteger, primary_key=True, autoincrement=False),
    Column("model_version", String, primary_key=True),
    Column("uri_key", String, nullable=False),
    Column("score", Float, nullable=False),
    Column("result", JSON, nullable=False),
    Column("delivery", String, nullable=False),  # see predictions.Delivery
    Column("delivered_at", Float, nullable=False, default=0.0),
    # The version's name in Label Studio, see prediction.shown_name. Empty: an earlier release used the version's own.
    Column("shown_as", String, nullable=False, default="", server_default=""),
    Index("predictions_by_version", "project", "model_version", "delivered_at"),
)
# Those on their way, see `IS_UNDELIVERED`.
Index(
    "predictions_owed",
    predictions.c.project,
    predictions.c.model_version,
    predictions.c.task,
    predictions.c.delivered_at,
    sqlite_where=text("delivery IN ('owed', 'pushing')"),
    postgresql_where=text("delivery IN ('owed', 'pushing')"),
)

# How many predictions there are, and when the last was delivered. Triggers count, see migrations/tallies.py.
prediction_tallies = Table(
    "prediction_tallies",
    metadata,
    Column("project", BigInteger, primary_key=True, autoincrement=False),
    Column("model_version", String, primary_key=True),
    Column("delivery", String, primary_key=True),
    Column("session", Integer, primary_key=True, autoincrement=False),  # a count is the sum over all of them
    Column("num", BigInteger, nullable=False),
    Column("last_at", Float, nullable=False),
)

# What Label Studio shows of each project, and how far its predictions follow the version that serves.
displays = Table(
    "displays",
    metadata,
    Column("project", BigInteger, primary_key=True, autoincrement=False),
    Column("shown_as", String, nullable=False, default=""),  # the name whose predictions it was last made to show
    Column("sampling", String, nullable=False, default=""),  # the order in which people get tasks, in its words
    Column("annotations_per_task", Integer, nullable=False, default=1),
    Column("model_version", String, nullable=False, default=""),  # whose suggestions are swept out; empty: all are out
    Column("took_over_at", Float, nullable=False, default=0.0),  # when that version took over
    Column("unswept_since", Float, nullable=False, default=0.0),  # when the first version took over that isn't out yet
    Column("cursor", BigInteger, nullable=False, default=0),  # the last task that the sweep has looked at
    Column("ends_at", BigInteger, nullable=False, default=0),  # the task after which it has come round
    Column("has_wrapped", Boolean, nullable=False, default=False),  # it has begun again at the first task
    Column("front", BigInteger, nullable=False, default=0),  # no task before this one is open
    Column("is_live", Boolean, nullable=False, default=False),  # it was made to ask for what its label stream opens
    Column("awaits_embeddings", Boolean, nullable=False, default=False),  # the sweep has queued tasks to be embedded
    Column("answer_s", Float, nullable=False, default=0.0),  # how long Label Studio takes for a change when it is idle
    Column("rests_until", Float, nullable=False, default=0.0),
)

# Audio that failed when it was last fetched or decoded, see AudioFailureStore.
audio_failures = Table(
    "audio_failures",
    metadata,
    Column("subject", String, primary_key=True),  # a URI key, or a host such as https://host
    Column("error_code", String, nullable=False),
    Column("is_passing", Boolean, nullable=False),
    Column("failed_at", Float, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", _BigId, primary_key=True, autoincrement=True),
    Column("queue", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("project", BigInteger, nullable=False),
    Column("task", BigInteger, nullable=False),
    Column("model_version", String, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("encoder", String, nullable=False, default=""),  # which workers can claim it, see job_records.claimable
    Column("push", Boolean, nullable=False),  # whether the result will be pushed to Label Studio
    Column("state", String, nullable=False),  # see jobs.State
    Column("attempts", Integer, nullable=False, default=0),
    Column("worker", String),
    Column("not_before", Float, nullable=False, default=0.0),
    Column("heartbeat_at", Float),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("error_code", String),
    Column("error", Text),
    Column("progress", Text),
    Index("jobs_by_subject", "project", "task", "model_version"),
)


def _index_some(name: str, condition: str, *columns: Column[Any] | TextClause, unique: bool = False) -> None:
    """An index of the jobs with the condition. A query uses it only if it has the same text, without parameters."""
    where = text(condition)
    Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where, _table=jobs)


# At most one open job for a subject; a further request joins it.
_index_some(
    "jobs_open_once",
    "state IN ('queued', 'running')",
    jobs.c.kind,
    jobs.c.project,
    jobs.c.task,
    jobs.c.model_version,
    unique=True,
)
_index_some("jobs_to_claim", "state = 'queued'", jobs.c.queue, jobs.c.encoder, jobs.c.id, jobs.c.not_before)
_index_some("jobs_waiting", "state = 'queued'", jobs.c.queue, jobs.c.encoder, text(f"({WAITS_SINCE})"))
_index_some("jobs_running", "state = 'running'", jobs.c.worker)
_index_some("jobs_failed", "state = 'failed'", jobs.c.project, jobs.c.model_version, jobs.c.task)
_index_some("jobs_of_project", "kind <> 'predict'", jobs.c.project, jobs.c.kind, jobs.c.id)
_index_some("jobs_ended", "finished_at IS NOT NULL", jobs.c.finished_at)

# How many jobs there are. Triggers count, see migrations/tallies.py.
job_tallies = Table(
    "job_tallies",
    metadata,
    Column("project", BigInteger, primary_key=True, autoincrement=False),
    Column("queue", String, primary_key=True),
    Column("kind", String, primary_key=True),
    Column("model_version", String, primary_key=True),
    Column("encoder", String, primary_key=True),
    Column("push", Boolean, primary_key=True),
    Column("state", String, primary_key=True),
    Column("failure", String, primary_key=True),  # the error's code; empty if nothing broke
    Column("session", Integer, primary_key=True, autoincrement=False),  # a count is the sum over all of them
    Column("num", BigInteger, nullable=False),
)

# How often tasks and recordings have changed. Triggers count.
content_changes = Table(
    "content_changes",
    metadata,
    Column("session", Integer, primary_key=True, autoincrement=False),  # the count is the sum over all of them
    Column("num", BigInteger, nullable=False),
)


@event.listens_for(metadata, "after_create")
def _make_triggers(_metadata: MetaData, connection: Connection, **_options: Any) -> None:
    for statement in tally_triggers(connection.dialect.name):
        connection.exec_driver_sql(statement)


# Searches under way, deleted when the answer was fetched or the client has gone.
searches = Table(
    "searches",
    metadata,
    Column("id", String, primary_key=True),
    Column("request", Text, nullable=False),  # a SearchRequest as JSON in ASCII
    Column("answer", Text),
    Column("asked_at", Float, nullable=False),
)

inbox = Table(
    "inbox",
    metadata,
    Column("id", _BigId, primary_key=True, autoincrement=True),
    Column("received_at", Float, nullable=False),
    Column("action", String, nullable=False),
    Column("project", BigInteger),
    Column("body", JSON, nullable=False),
    Column("suggestions", JSON),  # by task: the prediction that the event's annotations answered
    Index("inbox_by_project", "project", "id"),
)

ledger = Table(
    "ledger",
    metadata,
    Column("inbox_id", BigInteger, primary_key=True, autoincrement=False),  # the event that it comes from
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("project", BigInteger, nullable=False),
    Column("task", BigInteger, nullable=False),
    Column("annotation", BigInteger, nullable=False),
    Column("revision", Float, nullable=False),
    Column("annotator", BigInteger, nullable=False),
    Column("outcome", String, nullable=False),  # see ledger.Outcome
    Column("control", String, nullable=False),
    Column("region", String, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("suggested", JSON, nullable=False),
    Column("model_version", String, nullable=False),
    Column("score", Float),
    Column("iou", Float),
    Column("lead_time_s", Float),
    Column("ground_truth", Boolean, nullable=False),
    Column("start_s", Float),  # of the annotated and of the suggested region
    Column("end_s", Float),
    Column("suggested_start_s", Float),
    Column("suggested_end_s", Float),
    Column("recording_s", Float),
    Column("channel", Integer),
    Index("ledger_by_annotation", "project", "annotation", "revision"),
)

# The events that have been entered, including those without entries.
ledger_events = Table(
    "ledger_events",
    metadata,
    Column("inbox_id", BigInteger, primary_key=True, autoincrement=False),
    Column("reconciled", Boolean, nullable=False),  # it came from reconciliation, not from a webhook
)

# Derived from the ledger in the transaction that enters an event: which event each annotation stands by.
annotation_states = Table(
    "annotation_states",
    metadata,
    Column("project", BigInteger, primary_key=True, autoincrement=False),
    Column("annotation", BigInteger, primary_key=True, autoincrement=False),
    Column("task", BigInteger, nullable=False),
    Column("revision", Float, nullable=False),
    Column("inbox_id", BigInteger, nullable=False),  # the first event of its latest revision; 0: none but deletions
    Column("model_version", String, nullable=False),  # of the suggestion in view
    Column("withdrawn_by", BigInteger, nullable=False),  # the newest event that deleted it; 0: none
    Column("seen_by", BigInteger, nullable=False),  # the newest reconciliation that found it; 0: none
    Column("stands", Boolean, nullable=False),
    Index("annotation_states_by_task", "project", "task"),
)

# Derived from the annotations: what each task's annotators agree on.
labelled_tasks = Table(
    "labelled_tasks",
    metadata,
    Column("project", BigInteger, primary_key=True, autoincrement=False),
    Column("task", BigInteger, primary_key=True, autoincrement=False),
    # The generation of `learning` that the labels are of; 0: an event has come since.
    Column("generation", Integer, nullable=False, default=0),
    Column("received_at", Float, nullable=False),  # when the newest event about it arrived
    Column("labels", JSON, nullable=False),  # by control, see agreed_labels
    Column("left_out", JSON, nullable=False),  # what isn't learnt from, and why
    Index("labelled_tasks_by_generation", "project", "generation", "task"),
    Index("labelled_tasks_by_arrival", "project", "received_at"),
)

# The tasks that have each label, in the order in which samples are drawn.
agreed_labels = Table(
    "agreed_labels",
    metadata,
    Column("project", BigInteger, primary_key=True, autoincrement=False),
    Column("label_key", BigInteger, primary_key=True, autoincrement=False),  # see label_counts
    Column("draw", BigInteger, primary_key=True, autoincrement=False),  # a hash of the task's id
    Column("task", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

# How many tasks have each label, or are left out for each reason.
label_counts = Table(
    "label_counts",
    metadata,
    Column("project", BigInteger, primary_key=True, autoincrement=False),
    Column("label_key", BigInteger, primary_key=True, autoincrement=False),  # a hash of the next three, which are long
    Column("reason", String, nullable=False),  # see task_labels.Reason
    Column("control", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("num_tasks", BigInteger, nullable=False),
)

# What is kept between two learnings of a project.
learning = Table(
    "learning",
    metadata,
    Column("project", BigInteger, primary_key=True, autoincrement=False),
    Column("num_entries", BigInteger, nullable=False, default=0),  # in the ledger
    Column("rules", String, nullable=False, default=""),  # a hash of the labels' names that `generation` is of
    Column("generation", Integer, nullable=False, default=0),
    Column("rests_until", Float, nullable=False, default=0.0),  # Label Studio rests from the last rollout
    Column("channel", String),  # the channel that the project's tasks are keyed by; null: unknown
)

# A version beside the one before it, see TrialStore.
trials = Table(
    "trials",
    metadata,
    Column("id", _BigId, primary_key=True, autoincrement=True),
    Column("project", BigInteger, nullable=False),
    Column("kind", String, nullable=False),  # see trials.Kind
    Column("candidate", String, nullable=False),
    Column("reference", String, nullable=False),
    Column("num_labels", Integer, nullable=False),
    Column("alpha", Float, nullable=False),
    Column("shown_as", String, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("state", String, nullable=False),  # see trials.State
    Column("reason", Text, nullable=False, default=""),
    Column("after_event", BigInteger, nullable=False),
    Column("looked_at", Float, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Index("trials_of_project", "project", "id"),
)
# At most one open trial of a kind in a project.
Index(
    "trials_open_once",
    trials.c.project,
    trials.c.kind,
    unique=True,
    sqlite_where=text("state = 'open'"),
    postgresql_where=text("state = 'open'"),
)

trial_answers = Table(
    "trial_answers",
    metadata,
    Column("trial", BigInteger, primary_key=True, autoincrement=False),
    Column("task", BigInteger, primary_key=True, autoincrement=False),
    Column("project", BigInteger, nullable=False),
    Column("place", Integer, nullable=False),  # in the order in which they came
    Column("model_version", String, nullable=False),  # of the suggestion in view
    Column("lead", Float, nullable=False),
    Column("right", Float, nullable=False),
    Index("trial_answers_of_project", "project", "task"),
)

# The password that `clapboard connect` made because the operator had set none; a single row.
credentials = Table(
    "credentials",
    metadata,
    Column("user", String, primary_key=True),
    Column("password", String, nullable=False),
    Column("enforced", Boolean, nullable=False),  # Label Studio has it, so the backend requires it
)

# The addresses at which Label Studio was told to reach the backend.
backend_urls = Table("backend_urls", metadata, Column("url", String, primary_key=True))

# The new names of labels that people used under an old one. An empty label stands for all labels of the control.
label_renames = Table(
    "label_renames",
    metadata,
    Column("project", BigInteger, primary_key=True, autoincrement=False),
    Column("control", String, primary_key=True),
    Column("label", String, primary_key=True),
    Column("new_control", String, nullable=False),
    Column("new_label", String, nullable=False),
)

# Label Studio's users and their names.
annotators = Table(
    "annotators",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("name", String, nullable=False),
)
