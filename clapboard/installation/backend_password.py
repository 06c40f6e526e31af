"""The backend's password: the operator's if one is set, else the one that `clapboard connect` generates.

A generated password is kept in the store, which all backends, workers and commands share. Label Studio gets it before
the backends require it, so that a process that is killed in between shuts nobody out.
"""

from __future__ import annotations

from pydantic import SecretStr

from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.access import Credentials


def with_password(settings: Settings, store: Store) -> Settings:
    """The settings with the user and password that the backend requires, or will require in a moment."""
    made = None if settings.basic_auth_user else store.access.credentials()
    return settings if made is None else _with(settings, made)


def prepare(settings: Settings, store: Store) -> Settings:
    """Store the backend's address; the settings with a password for Label Studio, generated if there is none."""
    store.access.add_url(settings.backend_url)
    return settings if settings.basic_auth_user else _with(settings, store.access.make())


def _with(settings: Settings, made: Credentials) -> Settings:
    return settings.with_overrides(basic_auth_user=made.user, basic_auth_pass=SecretStr(made.password))
