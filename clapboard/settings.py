"""Settings: the only reader of the environment.

Names that Label Studio's ML backends already use are kept (`LABEL_STUDIO_URL`, `MODEL_DIR`, `PORT`, …); all
others start with `CLAPBOARD_`. An unknown `CLAPBOARD_` name is refused, so that a typo never passes in silence.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from clapboard.errors import SettingsError

DOTENV = Path(".env")

_AnySettings = TypeVar("_AnySettings", bound="Settings")


def _named(env: str, default: Any, description: str, **constraints: Any) -> Any:
    """A settings field that is read from the environment variable `env`."""
    return Field(default=default, validation_alias=env, description=description, **constraints)


class Settings(BaseSettings):
    """What an operator can decide. Frozen: made once by `load_settings` and handed on as an argument."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", case_sensitive=True, validate_default=True, env_file_encoding="utf-8"
    )

    # Label Studio
    label_studio_url: str = _named("LABEL_STUDIO_URL", "http://localhost:8080", "address of Label Studio")
    label_studio_api_key: SecretStr = _named(
        "LABEL_STUDIO_API_KEY", SecretStr(""), "its access token, legacy or personal; goes to that address alone"
    )

    # Model
    model: str = _named(
        "CLAPBOARD_MODEL", "laion/clap-htsat-unfused", "CLAP checkpoint: a hub id, a local folder, or `mini`"
    )
    device: str = _named("CLAPBOARD_DEVICE", "auto", "`auto`, `cpu`, `cuda` or `cuda:N`")
    dtype: Literal["auto", "float32", "bfloat16"] = _named(
        "CLAPBOARD_DTYPE",
        "auto",
        "`float32`, `bfloat16`, or `auto`: bfloat16 on CUDA, float32 on a CPU, but in training bfloat16 there too if "
        "it has AMX or AVX512-BF16",
    )
    torch_threads: int = _named(
        "CLAPBOARD_TORCH_THREADS", 0, "CPU threads of one forward pass; 0: as many as there are cores", ge=0, le=1024
    )
    engine: Literal["auto", "openvino", "torch", "reference"] = _named(
        "CLAPBOARD_ENGINE",
        "auto",
        "what computes the audio tower: `openvino` (an extra, CPU), `torch`, `reference` (transformers); `auto`: the "
        "fastest that agrees with the reference",
    )
    fusion: bool = _named(
        "CLAPBOARD_FUSION",
        False,
        "`true`: a recording is embedded as a whole, however long, not window by window; needs a checkpoint with "
        "feature fusion, such as `laion/clap-htsat-fused`",
    )
    batch_size: int = _named(
        "CLAPBOARD_BATCH_SIZE", 0, "windows in one forward pass at most; 0: found by itself", ge=0, le=4096
    )
    encoders: int = _named(
        "CLAPBOARD_ENCODERS",
        4,
        "encoders that a worker keeps loaded at most; the least recently used goes",
        ge=1,
        le=1000,
    )

    # Learning
    test_share: float = _named(
        "CLAPBOARD_TEST_SHARE",
        0.1,
        "share of a project's tasks set aside at `connect`: no suggestion, only ever used to judge a model",
        ge=0,
        le=0.9,
    )
    recording_key: str = _named(
        "CLAPBOARD_RECORDING_KEY", "recording", "key in a task's data that names the recording it was cut from"
    )
    sync_s: float = _named(
        "CLAPBOARD_SYNC_S",
        600.0,
        "seconds between two looks for annotations whose event was lost; 0: at start only",
        ge=0,
    )
    prune_quiet_s: float = _named(
        "CLAPBOARD_PRUNE_QUIET_S",
        30.0,
        "seconds without an annotation after which replaced predictions leave Label Studio",
        ge=0,
    )
    train_after: int = _named(
        "CLAPBOARD_TRAIN_AFTER", 100, "new labels after which a finetuning starts by itself; 0: never", ge=0
    )
    train_min_per_class: int = _named(
        "CLAPBOARD_TRAIN_MIN_PER_CLASS", 8, "labels that each class needs before it does", ge=1
    )
    train_quiet_s: float = _named("CLAPBOARD_TRAIN_QUIET_S", 60.0, "seconds without a new label before it does", ge=0)
    train_schedule: str = _named(
        "CLAPBOARD_TRAIN_SCHEDULE", "", "when to finetune every project, as in a crontab: `0 3 * * *`; empty: never"
    )
    max_class_fall: float = _named(
        "CLAPBOARD_MAX_CLASS_FALL", 0.2, "fall of one class's recall above which a candidate is refused", ge=0, le=1
    )

    # HTTP backend
    host: str = _named("CLAPBOARD_HOST", "127.0.0.1", "address that the backend listens on, and a worker's metrics")
    port: int = _named("PORT", 9090, "port that the backend listens on", ge=1, le=65535)
    url: str = _named(
        "CLAPBOARD_URL", "", "address at which Label Studio reaches the backend; empty: http://localhost:PORT"
    )
    basic_auth_user: str = _named("BASIC_AUTH_USER", "", "user name that the backend asks for; empty: none")
    basic_auth_pass: SecretStr = _named("BASIC_AUTH_PASS", SecretStr(""), "its password")
    predict_wait_s: float = _named(
        "CLAPBOARD_PREDICT_WAIT_S", 20.0, "seconds that /predict waits for what is not cached", ge=0, le=90
    )
    search_wait_s: float = _named(
        "CLAPBOARD_SEARCH_WAIT_S", 20.0, "seconds that /search waits for a worker's answer", ge=0.1, le=600
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = _named("LOG_LEVEL", "INFO", "least level that is logged")

    # Worker
    worker_metrics_port: int = _named(
        "CLAPBOARD_WORKER_METRICS_PORT",
        0,
        "port on CLAPBOARD_HOST where a worker serves its metrics, another for each worker of a machine; 0: none",
        ge=0,
        le=65535,
    )

    # State
    model_dir: Path = _named("MODEL_DIR", Path("~/.clapboard"), "folder of everything Clapboard keeps on disk")
    database_url: SecretStr = _named(
        "CLAPBOARD_DATABASE_URL", SecretStr(""), "SQLAlchemy address of the store; empty: SQLite in MODEL_DIR"
    )
    broker_url: SecretStr = _named(
        "CLAPBOARD_BROKER_URL", SecretStr(""), "Celery broker, such as redis://…; empty: a folder in MODEL_DIR"
    )
    job_lease_s: float = _named(
        "CLAPBOARD_JOB_LEASE_S", 30.0, "seconds without a heartbeat after which a job is queued again", ge=0.5
    )
    job_attempts: int = _named("CLAPBOARD_JOB_ATTEMPTS", 3, "times a job is tried before it counts as failed", ge=1)

    # Audio sources
    fetch_timeout_s: float = _named("CLAPBOARD_FETCH_TIMEOUT_S", 60.0, "seconds to fetch one file, all in all", gt=0)
    max_audio_mb: float = _named("CLAPBOARD_MAX_AUDIO_MB", 2048.0, "largest audio file that is fetched, in MB", gt=0)
    cache_mb: float = _named("CLAPBOARD_CACHE_MB", 4096.0, "size of the cache of fetched audio, in MB", ge=0)
    allow_private_urls: bool = _named(
        "CLAPBOARD_ALLOW_PRIVATE_URLS", False, "fetch task audio from loopback, link-local and private addresses too"
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = _named(
        "CLAPBOARD_ALLOWED_HOSTS", (), "comma-separated hosts, addresses or networks that may be private all the same"
    )

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("label_studio_url", "url", mode="after")
    @classmethod
    def _no_trailing_slash(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/")

    @field_validator("train_schedule", mode="after")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        if value.strip() and len(value.split()) != 5:
            raise ValueError("must have the five fields of a crontab line, such as 0 3 * * *")
        return value.strip()

    @field_validator("model_dir", mode="after")
    @classmethod
    def _expand(cls, value: Path) -> Path:
        try:
            return value.expanduser().absolute()
        except RuntimeError:
            raise ValueError("names a home folder, which this user doesn't have") from None

    @property
    def database(self) -> str:
        """SQLAlchemy URL of the store."""
        return self.database_url.get_secret_value() or f"sqlite:///{self.model_dir / 'clapboard.db'}"

    @property
    def backend_url(self) -> str:
        """Address at which Label Studio reaches the backend."""
        return self.url or f"http://localhost:{self.port}"

    @property
    def secrets(self) -> set[str]:
        """Every secret as it may turn up in a text: whole, and the passwords inside of addresses."""
        whole = {value.get_secret_value() for _, value in self if isinstance(value, SecretStr)} - {""}
        inside = {password for value in whole if (password := _password_in(value))}
        return whole | inside | {unquote(password) for password in inside}

    def checkpoint(self, encoder: str) -> str:
        """What to load for an encoder's name: finetuned ones lie below MODEL_DIR."""
        return str(self.model_dir / encoder) if encoder.startswith("models/") else encoder

    @property
    def audio_cache_dir(self) -> Path:
        """Folder of the cache of fetched audio."""
        return self.model_dir / "audio"

    @property
    def vectors_dir(self) -> Path:
        """Folder of the float16 copies of all embeddings, which are made anew if they are deleted."""
        return self.model_dir / "vectors"

    @property
    def benchmarks_dir(self) -> Path:
        """Folder of the embeddings of public data sets, which are made anew if they are deleted."""
        return self.model_dir / "benchmarks"

    @property
    def broker_dir(self) -> Path:
        """Folder of the filesystem transport's messages."""
        return self.model_dir / "broker"

    def with_overrides(self, **overrides: Any) -> Self:
        """A copy in which the given fields that are not None are replaced, and validated like any other.

        Raises `SettingsError`, naming every malformed one by its variable.
        """
        given = {field: value for field, value in overrides.items() if value is not None}
        values = {env_name(field): value for field, value in (dict(self) | given).items()}
        return _validated(type(self), values)


def env_name(field: str) -> str:
    """The environment variable that sets the field, as in README's table."""
    return str(Settings.model_fields[field].validation_alias)


def load_settings() -> Settings:
    """Settings from the environment, then from `.env` in the working directory, then the defaults.

    Raises `SettingsError`, naming every unknown or malformed variable at once.
    """
    known = {env_name(field) for field in Settings.model_fields}
    unknown = sorted(name for name in {**dotenv_values(DOTENV), **os.environ} if _is_ours(name) and name not in known)
    if unknown:
        raise SettingsError(f"Unknown setting {', '.join(unknown)}: `clapboard config` lists the ones there are.")
    return _validated(Settings, {"_env_file": DOTENV})


def provenance() -> dict[str, str]:
    """For each field, where its value came from: `environment`, `.env` or `default`."""
    from_file = dotenv_values(DOTENV)
    return {
        field: "environment" if env_name(field) in os.environ else ".env" if env_name(field) in from_file else "default"
        for field in Settings.model_fields
    }


def _validated(settings: type[_AnySettings], values: dict[str, Any]) -> _AnySettings:
    try:
        return settings(**values)
    except ValidationError as error:
        names = {field: env_name(field) for field in Settings.model_fields}  # a bad default is told by its field's name
        faults = "; ".join(
            f"{names.get(str(item['loc'][0]), item['loc'][0])}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors(include_input=False)
        )
        raise SettingsError(f"Setting not usable: {faults}.") from None


def _password_in(address: str) -> str:
    """The password of a URL, as it stands there; empty for what is none."""
    try:
        return urlsplit(address).password or ""
    except ValueError:
        return ""


def _is_ours(name: str) -> bool:
    return name.upper().startswith("CLAPBOARD_")
