"""`Settings`: the operator's decisions, checked."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr, ValidationError, ValidationInfo, field_validator, model_validator

from clapboard.errors import SettingsError
from clapboard.settings.crontab import next_time
from clapboard.settings.fields import SettingsFields, env_name
from clapboard.settings.hosts import allowed_host, require_http_address

CALIBRATION = "int8"
"""The folder of a calibration in a finetuned checkpoint's."""

_SECRETS = {"label_studio_api_key", "basic_auth_pass", "database_url", "broker_url"}
_BROKERS = ("redis", "rediss", "redis+socket", "sentinel", "amqp", "amqps")
_WHERE_CREDENTIALS_GO = {
    "label_studio_url": "Label Studio only takes its token, from LABEL_STUDIO_API_KEY",
    "label_studio_host": "Label Studio only takes its token, from LABEL_STUDIO_API_KEY",
    "url": "set BASIC_AUTH_USER and BASIC_AUTH_PASS",
}

_AnySettings = TypeVar("_AnySettings", bound=SettingsFields)


class Settings(SettingsFields):
    """The operator's decisions. Frozen: created once by `load_settings` and passed on as an argument."""

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
        """Every secret as it may appear in a text: whole, and the passwords within URLs, quoted or not."""
        whole = {value.get_secret_value() for _, value in self if isinstance(value, SecretStr)} - {""}
        passwords = {password for value in whole if (password := _password_in(value))}
        return whole | passwords | {unquote(password) for password in passwords}

    def checkpoint(self, encoder: str) -> str:
        """What to load for an encoder's name: a folder below MODEL_DIR if it was finetuned, else the name itself."""
        return str(self.model_dir / encoder) if encoder.startswith("models/") else encoder

    def calibration_dir(self, encoder: str) -> Path:
        """Folder of an encoder's calibration for int8: in its checkpoint if it was finetuned, else below MODEL_DIR."""
        if encoder.startswith("models/"):
            return self.model_dir / encoder / CALIBRATION
        digest = hashlib.sha256(encoder.encode()).hexdigest()[:8]
        return self.model_dir / "int8" / f"{Path(encoder.rstrip('/')).name}-{digest}"

    @property
    def audio_cache_dir(self) -> Path:
        """Folder of the cache of fetched audio."""
        return self.model_dir / "audio"

    @property
    def vectors_dir(self) -> Path:
        """Folder of the float16 copies of all embeddings. If deleted, it is made again."""
        return self.model_dir / "vectors"

    @property
    def benchmarks_dir(self) -> Path:
        """Folder of the embeddings of public data sets. If deleted, it is made again."""
        return self.model_dir / "benchmarks"

    @property
    def broker_dir(self) -> Path:
        """Folder of the filesystem transport's messages."""
        return self.model_dir / "broker"

    def with_overrides(self, **overrides: Any) -> Self:
        """A copy with these fields replaced, except by None, and checked like any other.

        Raises `SettingsError`, naming every invalid one by its variable.
        """
        replaced = {field: value for field, value in overrides.items() if value is not None}
        values = {env_name(field): value for field, value in (dict(self) | replaced).items()}
        return checked(type(self), values)

    @field_validator("*", mode="before")
    @classmethod
    def _strip(cls, value: Any, info: ValidationInfo) -> Any:
        """The value without white space at its ends, such as the newline at the end of a secret's file."""
        if not isinstance(value, str):
            return value
        value = value.strip("\r\n") if info.field_name in _SECRETS else value.strip()
        if not value.isprintable():
            raise ValueError("contains a line break or another control character")
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper_case(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("allowed_hosts", "host_names", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("allowed_hosts", mode="after")
    @classmethod
    def _check_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            allowed_host(entry)
        return value

    @field_validator("label_studio_url", "url", "label_studio_host", mode="after")
    @classmethod
    def _check_address(cls, value: str, info: ValidationInfo) -> str:
        is_path = info.field_name == "label_studio_host" and value.startswith("/") and not value.startswith("//")
        if not is_path and (value or info.field_name == "label_studio_url"):
            require_http_address(value, _WHERE_CREDENTIALS_GO[str(info.field_name)])
        return value.rstrip("/")

    @field_validator("model", "recording_key", "host", mode="after")
    @classmethod
    def _check_not_empty(cls, value: str) -> str:
        if not value:
            raise ValueError("is empty")
        return value

    @field_validator("device", mode="after")
    @classmethod
    def _check_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,4})?", value):
            raise ValueError("must be auto, cpu, cuda or cuda:N")
        return value

    @field_validator("train_schedule", mode="after")
    @classmethod
    def _check_crontab(cls, value: str) -> str:
        if value:
            next_time(value, 0.0)
        return value

    @field_validator("broker_url", mode="after")
    @classmethod
    def _check_broker(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value():
            _require_broker(value.get_secret_value())
        return value

    @field_validator("certificates", mode="after")
    @classmethod
    def _check_file(cls, value: str) -> str:
        if value and not Path(value).is_file():
            raise ValueError(f"{value} is not a file")
        return value

    @field_validator("model_dir", mode="after")
    @classmethod
    def _expand_home(cls, value: Path) -> Path:
        if not str(value).strip("."):
            raise ValueError("is empty")
        try:
            return value.expanduser().absolute()
        except RuntimeError:
            raise ValueError(
                "names a home folder, which this user doesn't have: set it, and HOME, to folders that it may write to"
            ) from None

    @model_validator(mode="after")
    def _check_user_and_password(self) -> Self:
        if bool(self.basic_auth_user) != bool(self.basic_auth_pass.get_secret_value()):
            raise ValueError("BASIC_AUTH_USER and BASIC_AUTH_PASS: set both or neither")
        if ":" in self.basic_auth_user:
            raise ValueError("BASIC_AUTH_USER: must not contain a colon, which ends the user name in basic auth")
        return self


def checked(settings: type[_AnySettings], values: dict[str, Any]) -> _AnySettings:
    """The settings with these values, by variable. Raises `SettingsError`, naming every invalid one."""
    try:
        return settings(**values)
    except ValidationError as error:
        names = {
            field: env_name(field) for field in SettingsFields.model_fields
        }  # pydantic names a bad default's field
        faults = "; ".join(
            "".join(f"{names.get(str(field), field)}: " for field in item["loc"][:1])
            + item["msg"].removeprefix("Value error, ")
            for item in error.errors(include_input=False)
        )
        raise SettingsError(f"Invalid setting: {faults}.") from None


def _password_in(address: str) -> str:
    """The password in a URL, quoted as it is there; empty if there is none."""
    try:
        return urlsplit(address).password or ""
    except ValueError:
        return ""


def _require_broker(value: str) -> None:
    """Raises `ValueError` if the value is not the URL of a broker."""
    try:
        parts = urlsplit(value)
        scheme, _ = parts.scheme, parts.port
    except ValueError:
        raise ValueError("is not a valid address: write redis://HOST:PORT/0") from None
    if scheme not in _BROKERS:
        raise ValueError(f"must start with one of {', '.join(f'{broker}://' for broker in _BROKERS)}")
    if scheme in {"redis", "rediss"} and not re.fullmatch(r"/?[0-9]*", parts.path):
        raise ValueError("must end with the number of the Redis database, as in redis://HOST:PORT/0")
