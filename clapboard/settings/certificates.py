"""The certificate authorities that TLS connections trust."""

from __future__ import annotations

import ssl
from functools import lru_cache

import certifi

from clapboard.errors import SettingsError
from clapboard.settings import Settings


def trusted_authorities(settings: Settings) -> ssl.SSLContext:
    """A context that trusts the system's authorities, certifi's, and those in SSL_CERT_FILE.

    Raises `SettingsError` if SSL_CERT_FILE holds no certificate.
    """
    return _context(settings.certificates)


@lru_cache(maxsize=2)  # reading hundreds of certificates takes 0.1 s
def _context(file: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    if file:
        try:
            context.load_verify_locations(file)
        except OSError as error:
            reason = "it holds no certificate in PEM" if isinstance(error, ssl.SSLError) else str(error.strerror)
            raise SettingsError(f"SSL_CERT_FILE: {file} can't be used ({reason}).") from None
    return context
