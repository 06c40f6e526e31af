"""Settings from the environment and the file `.env`. No other module of Clapboard reads the environment."""

from __future__ import annotations

import os
from pathlib import Path

from clapboard.errors import SettingsError
from clapboard.settings.dotenv_file import read_dotenv
from clapboard.settings.fields import env_name
from clapboard.settings.settings import Settings, checked

_DOTENV = Path(".env")


def load_settings() -> Settings:
    """Settings from the environment, then from `.env` in the working directory, then the defaults.

    An unknown name that starts with `CLAPBOARD_` is refused, so that a typo doesn't go unnoticed. Raises
    `SettingsError`, naming every unknown or invalid variable at once.
    """
    names = {env_name(field) for field in Settings.model_fields}
    from_file = read_dotenv(_DOTENV)
    unknown = sorted(name for name in {**from_file, **os.environ} if _is_ours(name) and name not in names)
    if unknown:
        raise SettingsError(f"Unknown setting {', '.join(unknown)}: `clapboard config` lists all settings.")
    if missing := sorted(name for name in names if name in from_file and from_file[name] is None):
        raise SettingsError(f"Setting {missing[0]} has no value in {_DOTENV}: write {missing[0]}=value.")
    return checked(Settings, {name: from_file[name] for name in names & from_file.keys() - os.environ.keys()})


def provenance() -> dict[str, str]:
    """Where each field's value comes from: `environment`, `.env` or `default`."""
    from_file = read_dotenv(_DOTENV)
    return {
        field: "environment" if env_name(field) in os.environ else ".env" if env_name(field) in from_file else "default"
        for field in Settings.model_fields
    }


def _is_ours(name: str) -> bool:
    return name.upper().startswith("CLAPBOARD_")
