"""Unexpected exceptions → the errors that are recorded for them."""

from __future__ import annotations

import logging

from clapboard.errors import ClapboardError, InternalError, StoreError
from clapboard.logs import describe

log = logging.getLogger(__name__)


def unexpected_error(doing: str, error: Exception) -> ClapboardError:
    """The error to record for an exception that was met while `doing` something. It is logged here.

    A `StoreError` is returned as it is.
    """
    if isinstance(error, StoreError):
        log.warning("%s broke off: %s", doing, error)
        return error
    log.error("%s failed: %s", doing, describe(error))
    kind = type(error).__name__
    return InternalError(f"An unexpected error while {doing} ({kind}): the worker's log says where.")
