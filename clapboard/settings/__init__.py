"""Every setting, from the environment, a `.env` file or its default. No other room reads the environment."""

from clapboard.settings.fields import env_name, section
from clapboard.settings.loading import load_settings, provenance
from clapboard.settings.settings import Settings

__all__ = ["Settings", "env_name", "load_settings", "provenance", "section"]
