"""`clapboard config`."""

from __future__ import annotations

from pathlib import Path

import pytest

from clapboard.errors import SettingsError
from clapboard.settings import Settings, env_name
from tests.clapboard.cli.conftest import Clapboard, lines


class TestConfig:
    SECRETS = ("label_studio_api_key", "basic_auth_pass", "database_url", "broker_url")

    def test_every_setting_is_listed_with_its_value_and_origin(self, clapboard: Clapboard, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("PORT=9191\nCLAPBOARD_BATCH_SIZE=8\n")
        (rows,) = lines(clapboard("config", "--json", port=9292, allowed_hosts="minio, 10.0.0.0/8"))
        by_name = {row.pop("setting"): row for row in rows}
        assert set(by_name) == {env_name(field) for field in Settings.model_fields}
        assert by_name["PORT"] == {"value": 9292, "from": "environment"}
        assert by_name["CLAPBOARD_BATCH_SIZE"] == {"value": 8, "from": ".env"}
        assert by_name["CLAPBOARD_DEVICE"] == {"value": "auto", "from": "default"}
        assert by_name["CLAPBOARD_ALLOWED_HOSTS"]["value"] == "minio, 10.0.0.0/8"
        assert by_name["CLAPBOARD_ALLOW_PRIVATE_URLS"]["value"] is False
        assert by_name["MODEL_DIR"]["value"] == str(tmp_path / "state")

    @pytest.mark.parametrize("arguments", [[], ["--json"]])
    def test_secrets_are_masked_and_absent_ones_empty(self, clapboard: Clapboard, arguments: list[str]) -> None:
        values = {
            "label_studio_api_key": "t0ken",
            "basic_auth_user": "ls",
            "basic_auth_pass": "t0ken",
            "database_url": "postgresql://me:t0ken@host/db",
            "broker_url": "redis://:t0ken@host",
        }
        done = clapboard("config", *arguments, **values)
        assert done.exit_code == 0
        assert "t0ken" not in done.stdout
        assert done.stdout.count("********") == len(self.SECRETS)
        assert "********" not in clapboard("config", *arguments).stdout

    def test_an_unknown_setting_is_refused_by_every_command(self, clapboard: Clapboard, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("CLAPBOARD_MODLE=mini\n")
        for command in (["config"], ["jobs"], ["worker", "--ping"], ["serve"], ["up"]):
            done = clapboard(*command)
            assert isinstance(done.exception, SettingsError)
            assert "CLAPBOARD_MODLE" in str(done.exception)

    def test_a_malformed_setting_is_named(self, clapboard: Clapboard) -> None:
        done = clapboard("config", port="ninety")
        assert isinstance(done.exception, SettingsError)
        assert "PORT" in str(done.exception)
