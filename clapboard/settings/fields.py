"""Every setting: its environment variable, default, bounds and description, by section.

The descriptions are the documentation: `docs/` shows them in a table. Names that Label Studio's ML backends already use
are kept (`LABEL_STUDIO_URL`, `MODEL_DIR`, `PORT`, …); all others start with `CLAPBOARD_`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_LONGEST_S = 1e8
"""Three years. Python's and the databases' clocks overflow on much longer times."""


def _setting(section: str, env: str, default: Any, description: str, **constraints: Any) -> Any:
    """A field that is read from the environment variable `env`."""
    return Field(
        default=default,
        validation_alias=env,
        description=description,
        json_schema_extra={"section": section},
        **constraints,
    )


_label_studio = partial(_setting, "Label Studio")
_model = partial(_setting, "Model")
_learning = partial(_setting, "Learning")
_backend = partial(_setting, "HTTP backend")
_worker = partial(_setting, "Worker")
_state = partial(_setting, "State")
_audio = partial(_setting, "Audio sources")


class SettingsFields(BaseSettings):
    """The settings as they are read; `Settings` checks them."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        case_sensitive=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    label_studio_url: str = _label_studio("LABEL_STUDIO_URL", "http://localhost:8080", "address of Label Studio")
    label_studio_api_key: SecretStr = _label_studio(
        "LABEL_STUDIO_API_KEY",
        SecretStr(""),
        "access token for Label Studio, legacy or personal; it is sent to `LABEL_STUDIO_URL` only",
    )
    label_studio_host: str = _label_studio(
        "LABEL_STUDIO_HOST",
        "",
        "Label Studio's public address, if it differs from `LABEL_STUDIO_URL`; the same as Label Studio's own setting "
        "of this name; empty: the address that Label Studio reports to the backend",
    )
    certificates: str = _label_studio(
        "SSL_CERT_FILE", "", "PEM file of certificate authorities to trust in addition to the usual ones"
    )

    model: str = _model(
        "CLAPBOARD_MODEL", "laion/clap-htsat-unfused", "CLAP checkpoint: a hub id, a local folder, or `mini`"
    )
    device: str = _model("CLAPBOARD_DEVICE", "auto", "`auto`, `cpu`, `cuda` or `cuda:N`")
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = _model(
        "CLAPBOARD_DTYPE",
        "auto",
        "`float32`, `bfloat16`, `int8` (for CPUs, after `clapboard calibrate`) or `auto`; "
        "`auto` is bfloat16 on a GPU that computes in it and float32 on all else, "
        "except that training also uses bfloat16 on CPUs with AMX or AVX512-BF16; what a device has no "
        "instructions for is refused",
    )
    torch_threads: int = _model(
        "CLAPBOARD_TORCH_THREADS", 0, "CPU threads of one forward pass; 0: one per core", ge=0, le=1024
    )
    engine: Literal["auto", "openvino", "torch", "reference"] = _model(
        "CLAPBOARD_ENGINE",
        "auto",
        "what computes the audio tower: `openvino` (an extra, CPU only), `torch`, or `reference` (transformers); "
        "`auto`: the fastest that agrees with the reference",
    )
    fusion: bool = _model(
        "CLAPBOARD_FUSION",
        False,
        "`true`: embed each recording as a whole, however long, instead of window by window; needs a checkpoint with "
        "feature fusion, such as `laion/clap-htsat-fused`",
    )
    batch_size: int = _model(
        "CLAPBOARD_BATCH_SIZE",
        0,
        "maximum number of windows in one forward pass; 0: chosen by measuring",
        ge=0,
        le=4096,
    )
    encoders: int = _model(
        "CLAPBOARD_ENCODERS",
        4,
        "maximum number of encoders that a worker keeps loaded; beyond it, the least recently used is unloaded",
        ge=1,
        le=1000,
    )

    test_share: float = _learning(
        "CLAPBOARD_TEST_SHARE",
        0.1,
        "share of a project's tasks that `connect` holds out: they get no suggestions, and models are judged on them",
        ge=0,
        le=0.9,
    )
    recording_key: str = _learning(
        "CLAPBOARD_RECORDING_KEY", "recording", "key in a task's data that names the recording the clip was cut from"
    )
    sync_s: float = _learning(
        "CLAPBOARD_SYNC_S",
        600.0,
        "seconds between checks for annotations whose event was lost; 0: check only at the start",
        ge=0,
        le=_LONGEST_S,
    )
    prune_quiet_s: float = _learning(
        "CLAPBOARD_PRUNE_QUIET_S",
        30.0,
        "seconds without an annotation before replaced predictions are deleted from Label Studio",
        ge=0,
        le=_LONGEST_S,
    )
    prune_after_s: float = _learning(
        "CLAPBOARD_PRUNE_AFTER_S",
        900.0,
        "minimum seconds that replaced predictions stay in Label Studio, for people who have such a task open",
        ge=0,
    )
    train_after: int = _learning(
        "CLAPBOARD_TRAIN_AFTER",
        100,
        "number of new labels that starts a finetuning automatically; 0: never",
        ge=0,
        le=10**9,
    )
    train_min_per_class: int = _learning(
        "CLAPBOARD_TRAIN_MIN_PER_CLASS",
        8,
        "labels that each class needs before a finetuning starts automatically",
        ge=1,
        le=10**9,
    )
    train_quiet_s: float = _learning(
        "CLAPBOARD_TRAIN_QUIET_S",
        60.0,
        "seconds without a new label before a finetuning starts automatically",
        ge=0,
        le=_LONGEST_S,
    )
    train_schedule: str = _learning(
        "CLAPBOARD_TRAIN_SCHEDULE",
        "",
        "when to finetune every project, as a crontab line in the worker's local time, such as `0 3 * * *`; empty: "
        "never",
    )
    finetune_from: Literal["base", "serving"] = _learning(
        "CLAPBOARD_FINETUNE_FROM",
        "base",
        "what a finetuning starts from: `base`, the model of CLAPBOARD_MODEL, or `serving`, the encoder that serves "
        "the project, which an earlier finetuning may have made",
    )
    train_folds: int = _learning(
        "CLAPBOARD_TRAIN_FOLDS",
        3,
        "parts into which the labelled clips are dealt to judge a finetuning by them too, where held-out tasks leave "
        "it open; 0: judge by held-out tasks alone",
        ge=0,
        le=10,
    )
    max_class_fall: float = _learning(
        "CLAPBOARD_MAX_CLASS_FALL",
        0.2,
        "largest drop of any class's recall with which a candidate is still accepted",
        ge=0,
        le=1,
    )

    canary_labels: int = _learning(
        "CLAPBOARD_CANARY_LABELS",
        200,
        "labels after which the trial of a finetuned candidate that the gate found likely better ends undecided; "
        "0: no trials",
        ge=0,
        le=10**6,
    )
    head_trial_labels: int = _learning(
        "CLAPBOARD_HEAD_TRIAL_LABELS",
        60,
        "labels by which heads that took over are compared with the version before them, and rolled back if they are "
        "surely worse; 0: never",
        ge=0,
        le=10**6,
    )

    host: str = _backend(
        "CLAPBOARD_HOST", "127.0.0.1", "address that the backend, and a worker's metrics server, listen on"
    )
    port: int = _backend("PORT", 9090, "port that the backend listens on", ge=1, le=65535)
    url: str = _backend(
        "CLAPBOARD_URL", "", "address at which Label Studio reaches the backend; empty: http://localhost:PORT"
    )
    host_names: Annotated[tuple[str, ...], NoDecode] = _backend(
        "CLAPBOARD_HOST_NAMES",
        (),
        "additional host names at which the backend may be called, such as a reverse proxy's, comma-separated; `*`: "
        "any",
    )
    basic_auth_user: str = _backend(
        "BASIC_AUTH_USER", "", "user name that the backend requires; empty: the one that `connect` generates"
    )
    basic_auth_pass: SecretStr = _backend(
        "BASIC_AUTH_PASS", SecretStr(""), "password for `BASIC_AUTH_USER`; set both or neither"
    )
    predict_wait_s: float = _backend(
        "CLAPBOARD_PREDICT_WAIT_S",
        5.0,
        "seconds that /predict waits for the first attempt at tasks that aren't cached",
        ge=0,
        le=90,
    )
    search_wait_s: float = _backend(
        "CLAPBOARD_SEARCH_WAIT_S", 20.0, "seconds that /search waits for a worker's answer", ge=0.1, le=600
    )
    max_body_mb: float = _backend(
        "CLAPBOARD_MAX_BODY_MB",
        64.0,
        "largest body of a request with tasks or events, in MB; larger ones are refused",
        gt=0,
        le=2000,
    )
    body_timeout_s: float = _backend(
        "CLAPBOARD_BODY_TIMEOUT_S", 30.0, "seconds within which a request's body must have arrived", gt=0, le=3600
    )
    max_connections: int = _backend(
        "CLAPBOARD_MAX_CONNECTIONS",
        512,
        "number of connections beyond which the backend closes the one that has been waiting longest",
        ge=1,
        le=50_000,
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = _backend(
        "LOG_LEVEL", "INFO", "lowest level that the backend and the workers log"
    )

    worker_metrics_port: int = _worker(
        "CLAPBOARD_WORKER_METRICS_PORT",
        0,
        "port on CLAPBOARD_HOST where a worker serves its metrics; each worker of a machine needs its own; 0: none",
        ge=0,
        le=65535,
    )

    model_dir: Path = _state("MODEL_DIR", Path("~/.clapboard"), "folder of everything that Clapboard keeps on disk")
    database_url: SecretStr = _state(
        "CLAPBOARD_DATABASE_URL", SecretStr(""), "SQLAlchemy URL of the store; empty: SQLite in MODEL_DIR"
    )
    broker_url: SecretStr = _state(
        "CLAPBOARD_BROKER_URL",
        SecretStr(""),
        "URL of the Celery broker, such as redis://…; empty: a folder in MODEL_DIR",
    )
    job_lease_s: float = _state(
        "CLAPBOARD_JOB_LEASE_S", 30.0, "seconds without a heartbeat after which a job is queued again", ge=0.5, le=1e6
    )
    job_timeout_s: float = _state(
        "CLAPBOARD_JOB_TIMEOUT_S",
        3600.0,
        "seconds that fetching a task's recording, or reading and embedding it, may take; then the task has failed",
        ge=0.1,
        le=_LONGEST_S,
    )
    job_attempts: int = _state(
        "CLAPBOARD_JOB_ATTEMPTS", 3, "number of attempts after which a job counts as failed", ge=1, le=1000
    )
    keep_days: float = _state(
        "CLAPBOARD_KEEP_DAYS",
        90.0,
        "days after which workers delete ended jobs, events that no annotation stands by, and embeddings of audio "
        "that no task has any more; labels are never deleted; 0: keep all",
        ge=0,
        le=36_500,
    )

    fetch_timeout_s: float = _audio(
        "CLAPBOARD_FETCH_TIMEOUT_S", 60.0, "maximum seconds for fetching one file, in total", gt=0, le=1e6
    )
    max_audio_mb: float = _audio(
        "CLAPBOARD_MAX_AUDIO_MB", 2048.0, "largest audio file that is fetched, in MB", gt=0, le=1e9
    )
    max_audio_s: float = _audio(
        "CLAPBOARD_MAX_AUDIO_S", 14_400.0, "longest recording that is embedded, in seconds", gt=0, le=_LONGEST_S
    )
    cache_mb: float = _audio("CLAPBOARD_CACHE_MB", 4096.0, "size of the cache of fetched audio, in MB", ge=0, le=1e9)
    allow_private_urls: bool = _audio(
        "CLAPBOARD_ALLOW_PRIVATE_URLS",
        False,
        "`true`: fetch task audio from loopback, link-local and private addresses too",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = _audio(
        "CLAPBOARD_ALLOWED_HOSTS",
        (),
        "hosts, addresses or networks that audio may be fetched from although they are private, comma-separated",
    )


def env_name(field: str) -> str:
    """The environment variable that sets the field."""
    return str(SettingsFields.model_fields[field].validation_alias)


def section(field: str) -> str:
    """The section of the documentation that the field belongs to."""
    extra = SettingsFields.model_fields[field].json_schema_extra
    assert isinstance(extra, dict)
    return str(extra["section"])
