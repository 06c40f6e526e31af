"""Failures of a call to Label Studio → one clear sentence, typed, without token or query."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
from label_studio_sdk.core.api_error import ApiError
from label_studio_sdk.core.parse_error import ParsingError

from clapboard.errors import LabelStudioError, LabelStudioUnreachable

MAX_REASON_CHARS = 300
NOT_LABEL_STUDIO = "LABEL_STUDIO_URL must be the address of Label Studio itself"
ALLOW_PRIVATE = (
    "start Label Studio with ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false so that it may reach "
    "addresses in its own network"
)


@contextmanager
def failures_as_ours(url: str, subject: str) -> Iterator[None]:
    """Turns each failure of the calls inside into `LabelStudioError` or `LabelStudioUnreachable`.

    `subject` is a noun that fits into «Label Studio refused …», such as «project 7».
    """
    where = f"Label Studio at {public_url(url)}"
    try:
        yield
    except httpx.TimeoutException:
        raise LabelStudioUnreachable(f"{where} did not answer in time ({subject}): try again later.") from None
    except httpx.TransportError as error:
        raise LabelStudioUnreachable(
            f"Nothing answers at {public_url(url)} ({subject}, {type(error).__name__}): "
            "is Label Studio running, and is LABEL_STUDIO_URL its address?"
        ) from None
    except httpx.HTTPError as error:
        raise LabelStudioError(f"{where} gave no usable answer ({subject}, {type(error).__name__}).") from None
    except (ApiError, ParsingError) as error:  # not chained: their text holds response headers with a session in them
        raise _from_status(where, subject, error.status_code or 0, error.body, error.headers or {}) from None
    except (ValueError, TypeError, AttributeError, KeyError):  # what the SDK raises for an answer of another shape
        raise LabelStudioError(f"{where} gave an answer that makes no sense ({subject}): {NOT_LABEL_STUDIO}.") from None


def reason_in(body: Any) -> str:
    """The reason in the body of a refusal: one short line of plain text; empty where the body is a web page."""
    if isinstance(body, dict):
        faults = body.get("validation_errors")
        parts = list(_leaves(faults)) if faults else [str(body.get("detail") or "")]
    elif isinstance(body, list):
        parts = list(_leaves(body))
    else:
        text = str(body or "")
        parts = [] if "<html" in text.lower() or "<!doctype" in text.lower() else [text]
    line = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", "; ".join(parts))).strip().rstrip(".")
    return line if len(line) <= MAX_REASON_CHARS else line[:MAX_REASON_CHARS] + "…"


def public_url(url: str) -> str:
    """The URL without credentials, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")).rstrip("/")


def _from_status(where: str, subject: str, status: int, body: Any, headers: dict[str, str]) -> LabelStudioError:
    reason = reason_in(body)
    because = f": {reason}" if reason else ""
    if status == 429 or status >= 500:
        return LabelStudioUnreachable(f"{where} failed with status {status} ({subject}){because}.")
    if 300 <= status < 400:
        target = urlsplit({name.lower(): value for name, value in headers.items()}.get("location", ""))
        to = f" to {target.scheme}://{target.netloc.rpartition('@')[2]}" if target.netloc else ""
        return LabelStudioError(f"{where} redirects{to}: set LABEL_STUDIO_URL to the address where it really answers.")
    if status == 401:
        return LabelStudioError(
            f"{where} refuses the token in LABEL_STUDIO_API_KEY{because}. Copy one from its page «Account & Settings»."
        )
    if not isinstance(body, dict | list):
        return LabelStudioError(f"{where} answered with a page, status {status} ({subject}): {NOT_LABEL_STUDIO}.")
    if status == 404:
        return LabelStudioError(f"{where} knows no {subject}, or this token may not see it.")
    if "reserved network address" in reason:
        return LabelStudioError(f"{where} refused {subject}{because}; {ALLOW_PRIVATE}.")
    if status == 403:
        return LabelStudioError(f"{where} does not allow this token {subject}{because}.")
    return LabelStudioError(f"{where} refused {subject}{because}.")


def _leaves(faults: Any, field: str = "") -> Iterator[str]:
    """Every text in nested validation errors, with the field it belongs to."""
    if isinstance(faults, dict):
        for name, inner in faults.items():
            yield from _leaves(inner, "" if name == "non_field_errors" else str(name))
    elif isinstance(faults, list):
        for inner in faults:
            yield from _leaves(inner, field)
    else:
        yield f"{field}: {faults}" if field else str(faults)
