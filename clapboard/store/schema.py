"""The tables. Times are seconds since 1970 (float); JSON columns hold only what Clapboard wrote itself."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

SCHEMA_VERSION = 3

metadata = MetaData()

# SQLite counts up only a column of type INTEGER.
_BigId = BigInteger().with_variant(Integer, "sqlite")

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
    Column("test_share", Float, nullable=False, default=0.0),  # of the tasks, set aside when it was connected
    Column("promoted", String, nullable=False, default=""),  # the pointer: a row of `versions`, or the base model
    Column("updated_at", Float, nullable=False),
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
    Column("promoted_at", Float),  # last; null for a candidate that never was
    Column("manifest", JSON, nullable=False),  # what it was made from and how it was judged
    Index("versions_by_promotion", "project", "promoted_at"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("project", BigInteger, primary_key=True, autoincrement=False),
    Column("task", BigInteger, primary_key=True, autoincrement=False),
    Column("uri", Text, nullable=False),
    Column("uri_key", String, nullable=False),
    Column("source", String, nullable=False),  # the recording it was cut from: one side of every split
    Column("set_aside", Boolean, nullable=False),  # for the test split
)

recordings = Table(
    "recordings",
    metadata,
    Column("uri_key", String, primary_key=True),
    Column("sha256", String, nullable=False),
    Column("num_windows", Integer, nullable=False),
    Column("duration_s", Float, nullable=False),
    Index("recordings_by_content", "sha256"),
)

embeddings = Table(
    "embeddings",
    metadata,
    Column("id", _BigId, primary_key=True, autoincrement=True),  # the order in which they came; none is given twice
    Column("sha256", String, nullable=False),
    Column("encoder_version", String, nullable=False),
    Column("dtype", String, nullable=False),
    Column("window_index", Integer, nullable=False),
    Column("vector", LargeBinary, nullable=False),  # [D] float32, unit norm
    Index("embeddings_by_content", "sha256", "encoder_version", "dtype", "window_index", unique=True),
    Index("embeddings_by_encoder", "encoder_version", "dtype", "id"),
    sqlite_autoincrement=True,
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
    Index("predictions_by_delivery", "delivery", "project"),
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
    Column("push", Boolean, nullable=False),  # the result is owed to Label Studio through its API
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
    Index("jobs_to_claim", "state", "queue", "id"),
    Index("jobs_by_subject", "project", "task", "model_version"),
)
# One open job for one subject: whoever asks again joins it.
Index(
    "jobs_open_once",
    jobs.c.kind,
    jobs.c.project,
    jobs.c.task,
    jobs.c.model_version,
    unique=True,
    sqlite_where=jobs.c.state.in_(["queued", "running"]),
    postgresql_where=jobs.c.state.in_(["queued", "running"]),
)

# What somebody waits for the answer to. A row is gone when they have it, or have gone.
searches = Table(
    "searches",
    metadata,
    Column("id", String, primary_key=True),
    Column("request", Text, nullable=False),  # search_request.SearchRequest, as JSON in ASCII
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
    Column("inbox_id", BigInteger, primary_key=True, autoincrement=False),  # the event that said it
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
    Index("ledger_by_annotation", "project", "annotation", "revision"),
)

# Events that are in the ledger, also those that mean nothing to it: what is read once is not read again.
ledger_events = Table(
    "ledger_events",
    metadata,
    Column("inbox_id", BigInteger, primary_key=True, autoincrement=False),
    Column("reconciled", Boolean, nullable=False),  # read through Label Studio's API, not told by a webhook
)
