from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import redis
import yaml

from clapboard.settings import Settings, env_name
from tests.docker.dockerfile import environment, last, lineage, pinned, read_stages
from tests.docker.outside import assert_clapboard_knows, assert_tells_up_from_down
from tests.support.programs import free_port, needs_program

DOCKER = Path(__file__).parents[2] / "docker"
TEXT = (DOCKER / "compose.yaml").read_text()
STAGES = read_stages(DOCKER / "Dockerfile")
OURS = ["backend", "worker", "worker-gpu"]
FOREIGN = ["label-studio", "postgres", "redis"]
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::([-?])([^}]*))?\}")


def example() -> dict[str, str]:
    """env.example as an operator fills it in."""
    lines = [line for line in (DOCKER / "env.example").read_text().splitlines() if line and not line.startswith("#")]
    filled = {"CLAPBOARD_TRAIN_SCHEDULE": "0 3 * * *", "LABEL_STUDIO_HOST": "https://example.com/studio"}
    return {
        name: value or filled.get(name, f"a{name.lower()}") for name, value in (line.split("=", 1) for line in lines)
    }


def compose() -> dict[str, Any]:
    """compose.yaml with the example's values, as Compose reads it."""

    def value(match: re.Match[str]) -> str:
        return example().get(match[1]) or (match[3] if match[2] == "-" else "")

    loaded: dict[str, Any] = yaml.safe_load(VARIABLE.sub(value, TEXT))
    return loaded


SERVICES: dict[str, Any] = compose()["services"]


def test_yamllint_finds_nothing() -> None:
    rules = "{extends: default, rules: {line-length: {max: 120}, document-start: disable}}"
    command = [sys.executable, "-m", "yamllint", "--strict", "--config-data", rules, DOCKER / "compose.yaml"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.stdout, run.returncode) == ("", 0)


def test_the_services_are_these_six() -> None:
    assert sorted(SERVICES) == sorted(OURS + FOREIGN)
    assert SERVICES["label-studio"]["image"] == "heartexlabs/label-studio:1.23.2"
    assert "latest" not in TEXT


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_image_is_pinned_to_a_version(name: str) -> None:
    assert pinned(SERVICES[name]["image"])


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_service_runs_as_root_or_can_become_it(name: str) -> None:
    service = SERVICES[name]
    user = service.get("user") or last(STAGES, service["build"]["target"], "USER")
    assert user.partition(":")[0] not in ("", "0", "root")
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "pid", "network_mode"} & set(service)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_has_a_health_check_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    if "build" in service:
        assert any(stage.of("HEALTHCHECK") for stage in lineage(STAGES, service["build"]["target"]))
    else:
        assert service["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", OURS)
def test_our_images_are_built_from_targets_that_exist(name: str) -> None:
    build = SERVICES[name]["build"]
    assert build["target"] in STAGES
    assert (DOCKER / build["context"] / build["dockerfile"]).resolve() == DOCKER / "Dockerfile"
    assert (DOCKER / build["context"] / "pyproject.toml").is_file()


@pytest.mark.parametrize("name", OURS)
def test_our_services_get_nothing_but_valid_settings(name: str) -> None:
    settings_names = {env_name(field) for field in Settings.model_fields}
    of_service = SERVICES[name]["environment"]
    assert of_service.keys() <= settings_names | {"TZ"}  # the time zone of the schedule
    assert "CLAPBOARD_TRAIN_SCHEDULE" in of_service
    image_variables = environment(STAGES, SERVICES[name]["build"]["target"])
    of_image = {key: value for key, value in image_variables.items() if key in settings_names}
    settings = Settings(**{**of_image, **of_service})
    assert settings.model_dir == Path("/var/lib/clapboard")
    assert settings.device == {"backend": "auto", "worker": "cpu", "worker-gpu": "cuda"}[name]
    assert urlsplit(settings.broker_url.get_secret_value()).hostname == "redis"
    assert urlsplit(settings.database).hostname == "postgres"
    assert settings.database.startswith("postgresql+psycopg://clapboard:")


def test_label_studio_can_reach_backend_and_webhook() -> None:
    settings = Settings(**{**environment(STAGES, "backend"), **SERVICES["backend"]["environment"]})
    address = urlsplit(settings.backend_url)
    assert address.hostname is not None
    assert "." in address.hostname
    assert address.hostname in SERVICES["backend"]["networks"]["web"]["aliases"]
    assert address.port == settings.port
    assert settings.host == "0.0.0.0"
    assert "web" in SERVICES["label-studio"]["networks"]
    flags = SERVICES["label-studio"]["environment"]
    assert (flags["ML_BLOCK_LOCAL_IP"], flags["SSRF_PROTECTION_ENABLED"]) == ("false", "false")


def test_our_services_reach_label_studio_with_its_token() -> None:
    label_studio = SERVICES["label-studio"]
    for name in OURS:
        variables = SERVICES[name]["environment"]
        address = urlsplit(variables["LABEL_STUDIO_URL"])
        assert address.hostname == "label-studio"
        assert label_studio["ports"] == [f"127.0.0.1:8080:{address.port}"]
        assert variables["LABEL_STUDIO_API_KEY"] == label_studio["environment"]["LABEL_STUDIO_USER_TOKEN"]
        assert "web" in SERVICES[name]["networks"]
    assert label_studio["environment"]["LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN"] == "true"


def test_services_wait_for_healthy_ones_that_share_a_network() -> None:
    for name, service in SERVICES.items():
        for other, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert set(service["networks"]) & set(SERVICES[other]["networks"]), f"{name} can't reach {other}"


def test_workers_serve_their_metrics_to_other_containers_alone() -> None:
    for name in ("worker", "worker-gpu"):
        settings = Settings(**SERVICES[name]["environment"])
        assert (settings.host, settings.worker_metrics_port) == ("0.0.0.0", 9091)
        assert not {"ports", "expose"} & set(SERVICES[name])
    assert Settings(**SERVICES["backend"]["environment"]).worker_metrics_port == 0


def test_databases_and_queue_are_reached_by_nobody_else() -> None:
    networks = compose()["networks"]
    for name in ("postgres", "redis"):
        assert "ports" not in SERVICES[name]
        assert all(networks[network]["internal"] for network in SERVICES[name]["networks"])
    assert not set(SERVICES["label-studio"]["networks"]) & set(SERVICES["redis"]["networks"])


def test_all_state_is_in_named_volumes() -> None:
    declared = set(compose()["volumes"])
    mounts = [mount.split(":") for service in SERVICES.values() for mount in service["volumes"]]
    assert {source for source, *_ in mounts if not source.startswith("./")} == declared
    assert all((DOCKER / source).is_file() for source, *_ in mounts if source.startswith("./"))
    for name in OURS:
        assert SERVICES[name]["volumes"] == ["clapboard:/var/lib/clapboard"]


def test_the_gpu_worker_is_a_profile_that_asks_for_a_gpu() -> None:
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["worker-gpu"]
    worker = SERVICES["worker-gpu"]
    assert worker["profiles"] == ["gpu"]
    assert worker["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert worker["build"]["target"] == "worker-cuda"


def test_every_variable_is_in_the_example_and_every_example_is_used() -> None:
    assert {match[1] for match in VARIABLE.finditer(TEXT)} == set(example())


def test_secrets_have_no_default_and_a_missing_one_stops_compose() -> None:
    secrets = [match for match in VARIABLE.finditer(TEXT) if re.search(r"PASS|KEY|TOKEN", match[1])]
    assert len({match[1] for match in secrets}) == 6
    assert all(match[2] == "?" and "docker/.env" in match[3] for match in secrets)


def test_every_command_in_the_comments_exists() -> None:
    commands = re.findall(r"^#.* clapboard ([a-z]+ .*)$", TEXT, flags=re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        assert_clapboard_knows(shlex.split(command))


def test_label_studio_s_health_check_tells_up_from_down() -> None:
    _, program, flag, code = SERVICES["label-studio"]["healthcheck"]["test"]
    assert (program, flag) == ("python3", "-c")
    assert_tells_up_from_down(code, "8080")


def test_redis_starts_with_its_options_keeps_messages_and_becomes_healthy(tmp_path: Path) -> None:
    program, *options = SERVICES["redis"]["command"]
    assert program == "redis-server"
    port = str(free_port())
    command = [needs_program("redis-server"), *options, "--port", port, "--bind", "127.0.0.1", "--dir", tmp_path]
    client_program, *arguments = SERVICES["redis"]["healthcheck"]["test"][1:]
    check = [client_program, "-p", port, *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            healthy_at_s = time.monotonic() + 10
            while subprocess.run(check, capture_output=True, check=False).returncode:
                assert time.monotonic() < healthy_at_s
                time.sleep(0.05)
            with redis.Redis(port=int(port)) as client:
                assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
                assert client.config_get("appendonly") == {"appendonly": "yes"}
        finally:
            server.kill()
    assert subprocess.run(check, capture_output=True, check=False).returncode != 0


def test_each_application_gets_a_database_that_the_other_can_t_open(new_postgres_url: Callable[[], str]) -> None:
    [folder] = parse_qs(urlsplit(new_postgres_url()).query)["host"]
    variables_of_postgres = SERVICES["postgres"]["environment"]
    passwords = {name: value for name, value in variables_of_postgres.items() if name.endswith("_ROLE_PASSWORD")}
    script = DOCKER / "create-databases.sh"
    psql = shutil.which("psql")
    assert psql is not None
    variables = {"PATH": str(Path(psql).parent) + ":/bin:/usr/bin", "PGHOST": folder, **passwords}
    roles = [urlsplit(SERVICES["backend"]["environment"]["CLAPBOARD_DATABASE_URL"]).username]
    roles.append(SERVICES["label-studio"]["environment"]["POSTGRE_USER"])
    with psycopg.connect(host=folder, user="postgres", autocommit=True) as connection:
        try:
            subprocess.run([script], env=variables, check=True, capture_output=True)
            for role, other in (roles, reversed(roles)):
                query = "SELECT has_database_privilege(%s, %s, 'CONNECT')"
                assert connection.execute(query, [role, role]).fetchone() == (True,)
                assert connection.execute(query, [other, role]).fetchone() == (False,)
                with psycopg.connect(host=folder, user=role, dbname=role) as own:
                    own.execute("CREATE TABLE works (id int)")
        finally:
            for role in roles:
                connection.execute(f"DROP DATABASE IF EXISTS {role}")
                connection.execute(f"DROP ROLE IF EXISTS {role}")
