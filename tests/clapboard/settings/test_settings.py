from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from clapboard.errors import SettingsError
from clapboard.settings import Settings, env_name, load_settings, provenance

REPOSITORY = Path(__file__).parents[3]
TOKEN = "c0ffee-the-token"

# As in a container that runs under a number; what is imported first may lie where that number can't read.
WITHOUT_HOME = """
import os
import clapboard.settings
os.setuid(54321)
try:
    clapboard.settings.load_settings()
except clapboard.errors.SettingsError as error:
    print(error)
os.environ["MODEL_DIR"] = "/var/lib/clapboard"
print(clapboard.settings.load_settings().model_dir)
"""


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting in the environment, and a working directory without `.env`."""
    for name in {*os.environ} & {env_name(field) for field in Settings.model_fields}:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def set_all(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


# Where values come from


def test_defaults_serve_a_newcomer() -> None:
    settings = load_settings()
    assert settings.label_studio_url == "http://localhost:8080"
    assert settings.model == "laion/clap-htsat-unfused"
    assert settings.port == 9090
    assert settings.backend_url == "http://localhost:9090"
    assert settings.model_dir == Path.home() / ".clapboard"
    assert settings.database == f"sqlite:///{Path.home()}/.clapboard/clapboard.db"
    assert settings.predict_wait_s == 5
    assert settings.search_wait_s == 20
    assert not settings.allow_private_urls


def test_the_environment_comes_before_the_env_file_and_that_before_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("PORT=1111\nCLAPBOARD_MODEL=mini\nOTHER_PROGRAMS_NAME=1\n", "utf-8")
    monkeypatch.setenv("PORT", "2222")
    settings = load_settings()
    assert (settings.port, settings.model, settings.batch_size) == (2222, "mini", 0)
    found = provenance()
    assert (found["port"], found["model"], found["batch_size"]) == ("environment", ".env", "default")
    assert list(found) == list(Settings.model_fields)


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_has_one_name_and_a_description(field: str) -> None:
    name = env_name(field)
    assert name.startswith("CLAPBOARD_") or name in {
        "LABEL_STUDIO_URL",
        "LABEL_STUDIO_API_KEY",
        "LABEL_STUDIO_HOST",
        "SSL_CERT_FILE",
        "MODEL_DIR",
        "PORT",
        "BASIC_AUTH_USER",
        "BASIC_AUTH_PASS",
        "LOG_LEVEL",
    }
    assert Settings.model_fields[field].description


def test_names_that_belong_to_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(
        monkeypatch, MODEL="x", DEVICE="y", HOST="z", URL="not a url", DATABASE_URL="d", port="77", SOMETHING_ELSE="1"
    )
    assert load_settings() == Settings()
    assert load_settings().port == 9090


def test_values_are_read_as_their_types(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(
        monkeypatch,
        CLAPBOARD_ALLOW_PRIVATE_URLS="true",
        CLAPBOARD_ALLOWED_HOSTS=" minio, 10.0.0.0/8 ,,",
        CLAPBOARD_JOB_LEASE_S="2.5",
        MODEL_DIR="~/state",
        LABEL_STUDIO_URL="https://studio.example.org/",
        CLAPBOARD_URL="http://clapboard.internal:9090/",
        CLAPBOARD_DATABASE_URL="postgresql://u:p@db/clapboard",
    )
    settings = load_settings()
    assert settings.allow_private_urls
    assert settings.allowed_hosts == ("minio", "10.0.0.0/8")
    assert settings.job_lease_s == 2.5
    assert settings.model_dir == Path.home() / "state"
    assert settings.label_studio_url == "https://studio.example.org"
    assert settings.backend_url == "http://clapboard.internal:9090"
    assert settings.database == "postgresql://u:p@db/clapboard"


def test_folders_are_absolute_whatever_the_working_directory_is_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MODEL_DIR", "state")
    settings = load_settings()
    assert settings.model_dir == tmp_path / "state"
    assert settings.audio_cache_dir.is_relative_to(settings.model_dir)
    assert settings.broker_dir.is_relative_to(settings.model_dir)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().port = 1  # type: ignore[misc]


def test_a_user_without_a_home_folder_may_name_one() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become a user without an account")
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT_HOME],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)},
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert process.stdout.split("\n") == [
        "Invalid setting: MODEL_DIR: names a home folder, which this user doesn't have: set it, and HOME, to "
        "folders that it may write to.",
        "/var/lib/clapboard",
        "",
    ], process.stderr


# Refusals


@pytest.mark.parametrize(
    "name", ["CLAPBOARD_MODLE", "CLAPBOARD_PORT", "CLAPBOARD_", "clapboard_modle", "Clapboard_Model"]
)
@pytest.mark.parametrize("place", ["environment", ".env"])
def test_an_unknown_name_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, place: str) -> None:
    if place == "environment":
        monkeypatch.setenv(name, "x")
    else:
        (tmp_path / ".env").write_text(f"{name}=x\n", "utf-8")
    with pytest.raises(SettingsError, match=f"Unknown setting {name}: .*clapboard config"):
        load_settings()


def test_all_unknown_names_are_told_at_once_without_their_values(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(f"CLAPBOARD_B={TOKEN}\n", "utf-8")
    set_all(monkeypatch, CLAPBOARD_A=TOKEN, CLAPBOARD_C=TOKEN)
    with pytest.raises(SettingsError, match="CLAPBOARD_A, CLAPBOARD_B, CLAPBOARD_C") as caught:
        load_settings()
    assert TOKEN not in str(caught.value)


MALFORMED = {
    "PORT": ["0", "65536", "http", "", "9090 9091"],
    "LABEL_STUDIO_API_KEY": ["abc\ndef", "abc\x1bdef"],
    "LABEL_STUDIO_HOST": ["studio.example", "//studio.example", "http://", "http://a:b@studio"],
    "SSL_CERT_FILE": ["/nowhere/ca.pem", "/"],
    "CLAPBOARD_MODEL": ["", " "],
    "CLAPBOARD_HOST": [""],
    "CLAPBOARD_RECORDING_KEY": ["", "record\ning"],
    "MODEL_DIR": ["", " ", "/var/lib/clap\x07board"],
    "CLAPBOARD_DEVICE": ["", "gpu", "cuda:", "cuda:x"],
    "CLAPBOARD_ALLOWED_HOSTS": ["http://minio", "minio:9000", "10.0.0.0/99"],
    "CLAPBOARD_BROKER_URL": ["redis", "redis://[/x]", "redis://h:port", "foo://x", "memory://", "redis://h/queue"],
    "CLAPBOARD_TRAIN_SCHEDULE": ["daily", "0 3 * *", "61 3 * * *", "0 3 * * someday"],
    "CLAPBOARD_TRAIN_AFTER": ["-1", "1.5", "1e3", "9" * 30],
    "CLAPBOARD_SYNC_S": ["-1", "inf", "1e300"],
    "CLAPBOARD_PRUNE_QUIET_S": ["1e300"],
    "CLAPBOARD_TRAIN_QUIET_S": ["1e300"],
    "CLAPBOARD_DTYPE": ["float16", "FLOAT32"],
    "CLAPBOARD_WORKER_METRICS_PORT": ["-1", "65536", ""],
    "CLAPBOARD_BATCH_SIZE": ["-1", "1.5"],
    "CLAPBOARD_ENGINE": ["onnx", ""],
    "CLAPBOARD_FUSION": ["yes please", ""],
    "CLAPBOARD_PREDICT_WAIT_S": ["-1", "91", "nan"],
    "CLAPBOARD_SEARCH_WAIT_S": ["0", "601", "nan"],
    "CLAPBOARD_MAX_BODY_MB": ["0", "nan"],
    "CLAPBOARD_BODY_TIMEOUT_S": ["0", "inf"],
    "CLAPBOARD_MAX_CONNECTIONS": ["0", "1.5"],
    "CLAPBOARD_JOB_LEASE_S": ["0", "nan", "1e300"],
    "CLAPBOARD_JOB_ATTEMPTS": ["0"],
    "CLAPBOARD_FETCH_TIMEOUT_S": ["0", "soon"],
    "CLAPBOARD_MAX_AUDIO_MB": ["0", "nan"],
    "CLAPBOARD_MAX_AUDIO_S": ["0", "inf"],
    "CLAPBOARD_JOB_TIMEOUT_S": ["0", "never"],
    "CLAPBOARD_CACHE_MB": ["-1", "nan", "1e303"],
    "CLAPBOARD_ALLOW_PRIVATE_URLS": ["perhaps"],
    "LABEL_STUDIO_URL": [
        "",
        "localhost:8080",
        "ftp://studio",
        "http://",
        "http://[",
        "http://studio:port",
        "http://studio:99999",
        "http://stu dio",
        "http://xn--a/",
        "http://studio?x=1",
        "http://studio/#x",
        "http://ann:secret@studio",
        "http://studio\n.example",
    ],
    "CLAPBOARD_URL": ["clapboard:9090", "http://ann:secret@clapboard:9090", "https://"],
    "LOG_LEVEL": ["LOUD"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in MALFORMED.items() for value in values])
def test_a_malformed_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"{name}: "):
        load_settings()


def test_all_malformed_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CLAPBOARD_DTYPE=int4\n", "utf-8")
    set_all(monkeypatch, **{name: values[0] for name, values in MALFORMED.items() if name != "CLAPBOARD_DTYPE"})
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert [name for name in MALFORMED if f"{name}: " not in str(caught.value)] == []
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", ["\n", "\r\n", " \n"])
def test_white_space_around_a_value_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    set_all(
        monkeypatch,
        LABEL_STUDIO_URL=f"http://studio:8080/{end}",
        PORT=f"9191{end}",
        MODEL_DIR=f"/var/lib/clapboard{end}",
        LOG_LEVEL=f"info{end}",
        LABEL_STUDIO_API_KEY=f"{TOKEN}\n",
        BASIC_AUTH_USER="ls",
        BASIC_AUTH_PASS=" with spaces \n",
    )
    settings = load_settings()
    assert settings.label_studio_url == "http://studio:8080"
    assert (settings.port, settings.log_level) == (9191, "INFO")
    assert settings.model_dir == Path("/var/lib/clapboard")
    assert settings.label_studio_api_key.get_secret_value() == TOKEN
    assert settings.basic_auth_pass.get_secret_value() == " with spaces "


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("PORT=9191\n".encode("utf-16"), "The file .env is not UTF-8 text but UTF-16: save it as UTF-8."),
        ("PORT=9191\n".encode("utf-16-le"), "The file .env is not UTF-8 text but UTF-16: save it as UTF-8."),
        ("BASIC_AUTH_USER=Zoë\n".encode("latin-1"), "The file .env is not UTF-8 text: save it as UTF-8."),
        (b"PORT=9191\nCLAPBOARD_MODEL mini\n", "Line 2 of .env can't be read: write NAME=value."),
        (b"PORT='9191\n", "Line 1 of .env can't be read: write NAME=value."),
        (b"PORT\n", "Setting PORT has no value in .env: write PORT=value."),
    ],
)
def test_an_env_file_that_is_none_is_refused_in_a_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == sentence


def test_an_env_file_of_windows_is_read_and_a_folder_of_that_name_is_none(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfPORT=9191\r\nCLAPBOARD_MODEL=mini\r\n")
    assert (load_settings().port, load_settings().model) == (9191, "mini")
    (tmp_path / ".env").unlink()
    (tmp_path / ".env").mkdir()
    assert load_settings().port == 9090


def test_a_malformed_value_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, LABEL_STUDIO_URL=f"{TOKEN}@studio", PORT=TOKEN, CLAPBOARD_ALLOW_PRIVATE_URLS=TOKEN)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert TOKEN not in str(caught.value)
    assert caught.value.__cause__ is None


# Secrets


def test_secrets_are_in_no_text_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(
        monkeypatch,
        LABEL_STUDIO_API_KEY=TOKEN,
        BASIC_AUTH_USER="ls",
        BASIC_AUTH_PASS=TOKEN,
        CLAPBOARD_DATABASE_URL=f"postgresql://u:{TOKEN}@db/clapboard",
        CLAPBOARD_BROKER_URL=f"redis://:{TOKEN}@queue/0",
    )
    settings = load_settings()
    assert settings.label_studio_api_key.get_secret_value() == TOKEN
    for words in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_dump())):
        assert TOKEN not in words


# Overrides


@pytest.mark.parametrize("field", Settings.model_fields)
def test_any_setting_can_be_overridden_and_the_others_stay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, field: str
) -> None:
    (tmp_path / ".env").write_text("CLAPBOARD_JOB_ATTEMPTS=7\nBASIC_AUTH_USER=ann\nBASIC_AUTH_PASS=s3cret\n", "utf-8")
    set_all(monkeypatch, CLAPBOARD_MODEL="from/environment", LABEL_STUDIO_API_KEY=TOKEN, CLAPBOARD_HOST="0.0.0.0")
    settings = load_settings()
    (tmp_path / ".env").unlink()
    others = {"label_studio_url": "http://other", "url": "http://me", "dtype": "bfloat16", "log_level": "DEBUG"}
    others |= {"engine": "torch", "device": "cuda:1", "label_studio_host": "/ls"}
    numbers: dict[str, Any] = {"worker_metrics_port": 4, "search_wait_s": 9.0}
    numbers |= {"max_body_mb": 10.0, "body_timeout_s": 11.0, "max_connections": 12}
    numbers |= {"batch_size": 5, "torch_threads": 3, "port": 6, "predict_wait_s": 7.0, "job_attempts": 8, "encoders": 2}
    learning = {"test_share": 0.3, "sync_s": 0.0, "prune_quiet_s": 1.0, "prune_after_s": 2.0}
    learning |= {"train_after": 3, "train_min_per_class": 2, "train_quiet_s": 0.5, "train_folds": 4}
    learning |= {
        "train_schedule": "0 3 * * 1",
        "max_class_fall": 0.5,
        "finetune_from": "serving",
        "head_trial_labels": 9,
        "canary_labels": 50,
    }
    values: dict[str, Any] = {
        **others,
        **numbers,
        **learning,
        **dict.fromkeys(
            ("job_lease_s", "job_timeout_s", "fetch_timeout_s", "max_audio_mb", "max_audio_s", "cache_mb", "keep_days"),
            9.5,
        ),
        **dict.fromkeys(("label_studio_api_key", "basic_auth_pass", "database_url"), SecretStr("other")),
        "broker_url": SecretStr("redis://other/0"),
        "certificates": str(REPOSITORY / "README.md"),
        "model_dir": tmp_path / "other",
        "allow_private_urls": True,
        "fusion": True,
        "allowed_hosts": ("other",),
        "host_names": ("other",),
    }
    value = values.get(field, "other")
    changed = settings.with_overrides(**{field: value})
    assert getattr(changed, field) == value
    assert getattr(settings, field) != value
    for name in Settings.model_fields.keys() - {field}:
        assert getattr(changed, name) == getattr(settings, name)


def test_an_override_that_is_none_or_absent_changes_nothing() -> None:
    settings = load_settings()
    assert settings.with_overrides() == settings
    assert settings.with_overrides(model=None, port=None) == settings


def test_a_secret_may_be_overridden_by_text() -> None:
    changed = load_settings().with_overrides(database_url="sqlite:////tmp/other.db", allowed_hosts="a,b")
    assert changed.database == "sqlite:////tmp/other.db"
    assert changed.allowed_hosts == ("a", "b")
    assert changed.with_overrides(port=1).database == "sqlite:////tmp/other.db"


def test_an_override_is_validated_like_any_other_value() -> None:
    with pytest.raises(SettingsError, match=r"PORT: .*CLAPBOARD_DTYPE: |CLAPBOARD_DTYPE: .*PORT: ") as caught:
        load_settings().with_overrides(port=99_999, dtype="int4", label_studio_api_key=TOKEN)
    assert TOKEN not in str(caught.value)


def test_an_override_that_doesnt_exist_is_a_programming_error() -> None:
    with pytest.raises(KeyError, match="modle"):
        load_settings().with_overrides(modle="mini")


@pytest.mark.parametrize("half", ["BASIC_AUTH_USER", "BASIC_AUTH_PASS"])
def test_half_a_password_is_refused(monkeypatch: pytest.MonkeyPatch, half: str) -> None:
    monkeypatch.setenv(half, "s3cret")
    with pytest.raises(SettingsError, match="BASIC_AUTH_USER and BASIC_AUTH_PASS: set both or neither") as error:
        load_settings()
    assert "s3cret" not in str(error.value)
