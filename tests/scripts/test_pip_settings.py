"""pip's configuration, as uv is given it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scripts.pip_settings import pip_settings, uv_settings

CACHE = Path("cache")


@pytest.fixture
def pip_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that pip reads its configuration from, beside the variables that the test sets; no other."""
    for name in ("PIP_CERT", "PIP_DEFAULT_TIMEOUT", "PIP_FIND_LINKS", "PIP_NO_CACHE_DIR", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    return tmp_path / "pip.conf"


def test_files_and_variables_of_pip_are_read_in_the_order_in_which_pip_install_reads_them(
    pip_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip_file.write_text(
        "[global]\nindex-url = https://global/simple\ntrusted-host = one\n  two\ntimeout = 5\n"
        "[install]\nindex-url = https://install/simple\ncert = /global.pem\n[download]\ntimeout = 7\n"
    )
    monkeypatch.setenv("PIP_CERT", "/variable's.pem")
    settings = pip_settings(Path(sys.executable))
    assert settings["index-url"] == "https://install/simple"
    assert settings["cert"] == "/variable's.pem"
    assert settings["trusted-host"].split() == ["one", "two"]
    assert settings["timeout"] == "5"


def test_each_setting_goes_to_the_variable_of_uv_that_means_the_same(tmp_path: Path) -> None:
    pip = {
        "index-url": "https://index/simple",
        "extra-index-url": "https://first/simple\nhttps://second/simple",
        "find-links": "/wheels https://links",
        "trusted-host": "one\ntwo",
        "cert": "/bundle.pem",
        "client-cert": "/client.pem",
        "proxy": "http://proxy:3128",
        "default-timeout": "180",
        "retries": "9",
        "constraint": "/a.txt /b.txt",
        "no-index": "true",
    }
    uv = uv_settings(pip, {}, cache=CACHE)
    assert uv.variables == {
        "UV_DEFAULT_INDEX": "https://index/simple",
        "UV_INDEX": "https://first/simple https://second/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/wheels,https://links",
        "UV_INSECURE_HOST": "one two",
        "UV_HTTP_TIMEOUT": "180",
        "UV_HTTP_RETRIES": "9",
        "SSL_CERT_FILE": "/bundle.pem",
        "SSL_CLIENT_CERT": "/client.pem",
        "HTTP_PROXY": "http://proxy:3128",
        "HTTPS_PROXY": "http://proxy:3128",
    }
    assert uv.options == ["--constraint", "/a.txt", "--constraint", "/b.txt", "--no-index"]
    assert uv_settings({"cert": str(tmp_path)}, {}, cache=CACHE).variables == {"SSL_CERT_DIR": str(tmp_path)}


def test_what_uv_is_told_already_stays() -> None:
    pip = {"index-url": "https://pip/simple", "extra-index-url": "https://more/simple", "cert": "/pip.pem"}
    environment = {"UV_DEFAULT_INDEX": "https://uv/simple", "SSL_CERT_FILE": "/uv.pem", "UV_EXTRA_INDEX_URL": ""}
    assert uv_settings(pip, environment, cache=CACHE).variables == {}
    assert uv_settings(pip, environment | {"UV_INDEX_URL": "x"}, cache=CACHE).variables == {}


def test_without_a_cache_for_pip_uv_gets_one_of_its_own_that_can_be_removed() -> None:
    assert uv_settings({"no-cache-dir": "1", "cert": "/x"}, {}, cache=CACHE).variables["UV_CACHE_DIR"] == "cache"
    assert "UV_CACHE_DIR" not in uv_settings({"cert": "/x"}, {}, cache=CACHE).variables
