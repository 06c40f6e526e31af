"""Hands pip's configuration on to uv, which reads none of it.

Read from pip: the index and further indexes, folders of wheels, certificates, proxy, trusted hosts, constraints,
timeout, retries, and whether to keep a cache. A variable that uv's user has set already is left as it is.
"""

from __future__ import annotations

import ast
import ssl
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Later sections override earlier ones, as in `pip install`.
_SECTIONS = ("global", "install", ":env:")


@dataclass
class UvSettings:
    """What uv is started with: environment variables, and options of `uv pip install`."""

    variables: dict[str, str] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)


def pip_settings(python: Path) -> dict[str, str]:
    """The settings of that Python's `pip install`, from pip's files and PIP_* variables, such as `index-url`."""
    command = [str(python), "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    sections: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section in sections:
            sections[section][key] = str(ast.literal_eval(value))
    return {key: value for section in _SECTIONS for key, value in sections[section].items()}


def uv_settings(pip: Mapping[str, str], environment: Mapping[str, str], *, cache: Path) -> UvSettings:
    """What makes uv do as pip would; `cache` is the folder to use where pip is told to keep no cache."""
    variables: dict[str, str] = {}
    extra_indexes = pip.get("extra-index-url", "").split()
    if "UV_INDEX_URL" not in environment:
        variables["UV_DEFAULT_INDEX"] = pip.get("index-url", "")
    if extra_indexes and "UV_EXTRA_INDEX_URL" not in environment:
        variables["UV_INDEX"] = " ".join(extra_indexes)
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # pip too takes the best of all indexes
    variables["UV_FIND_LINKS"] = ",".join(pip.get("find-links", "").split())
    variables["UV_INSECURE_HOST"] = " ".join(pip.get("trusted-host", "").split())
    variables["UV_HTTP_TIMEOUT"] = pip.get("timeout") or pip.get("default-timeout", "")
    variables["UV_HTTP_RETRIES"] = pip.get("retries", "")
    variables |= _certificates(pip)
    if proxy := pip.get("proxy"):
        variables |= {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy}
    if "no-cache-dir" in pip:  # whatever its value is: so does pip
        variables["UV_CACHE_DIR"] = str(cache)
    options = [word for file in pip.get("constraint", "").split() for word in ("--constraint", file)]
    if pip.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        options.append("--no-index")
    return UvSettings({name: value for name, value in variables.items() if value and name not in environment}, options)


def _certificates(pip: Mapping[str, str]) -> dict[str, str]:
    certificates = {"SSL_CLIENT_CERT": pip.get("client-cert", "")}
    if cert := pip.get("cert"):
        certificates["SSL_CERT_DIR" if Path(cert).is_dir() else "SSL_CERT_FILE"] = cert
    elif _system_has_certificates():
        certificates["UV_SYSTEM_CERTS"] = "true"  # as pip does since 24.2
    return certificates


def _system_has_certificates() -> bool:
    paths = ssl.get_default_verify_paths()
    return paths.cafile is not None or (paths.capath is not None and any(Path(paths.capath).iterdir()))
