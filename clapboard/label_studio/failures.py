"""Errors of a call to Label Studio → `LabelStudioError`s of one sentence, without token or query."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
from label_studio_sdk.core.api_error import ApiError
from label_studio_sdk.core.parse_error import ParsingError

from clapboard.errors import LabelStudioError, LabelStudioLacks, LabelStudioUnreachable

MAX_REASON_CHARS = 300
NOT_LABEL_STUDIO = "LABEL_STUDIO_URL must be the address of Label Studio itself"
ALLOW_PRIVATE = (
    "start Label Studio with ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false so that it may reach "
    "addresses in its own network"
)


@contextmanager
def label_studio_errors(url: str, subject: str) -> Iterator[None]:
    """Turn every error of the calls inside the `with` into a `LabelStudioError` or `LabelStudioUnreachable`.

    `subject` is a noun that fits into «Label Studio refused …», such as «project 7».
    """
    where = f"Label Studio at {public_url(url)}"
    try:
        yield
    except httpx.TimeoutException:
        raise LabelStudioUnreachable(f"{where} did not answer in time ({subject}): try again later.") from None
    except httpx.TransportError as error:
        if certificate := _refused_certificate(error):
            raise LabelStudioError(
                f"The certificate of {public_url(url)} can't be verified ({certificate}): if your own authority has "
                "issued it, name that one's certificate file in SSL_CERT_FILE."
            ) from None
        raise LabelStudioUnreachable(
            f"Nothing answers at {public_url(url)} ({subject}, {type(error).__name__}): "
            "is Label Studio running, and is LABEL_STUDIO_URL its address?"
        ) from None
    except httpx.HTTPError as error:
        raise LabelStudioError(
            f"{where} gave no usable answer ({subject}, {type(error).__name__}): look at its log."
        ) from None
    except (ApiError, ParsingError) as error:  # not chained, because their text has response headers with a session
        raise _from_status(where, subject, error.status_code or 0, error.body, error.headers or {}) from None
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):  # the answer has another form
        raise LabelStudioError(f"{where} gave an answer that can't be read ({subject}): {NOT_LABEL_STUDIO}.") from None


def reason_in(body: Any) -> str:
    """The reason in an error's body, as one short line of plain text; empty if the body is a web page."""
    if isinstance(body, dict):
        errors = body.get("validation_errors")
        parts = list(_leaves(errors)) if errors else [str(body.get("detail") or "")]
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


def _refused_certificate(error: BaseException | None) -> str:
    """Why a certificate was refused, if that caused the error; else empty."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return ""


def _from_status(where: str, subject: str, status: int, body: Any, headers: dict[str, str]) -> LabelStudioError:
    reason = reason_in(body)
    because = f": {reason}" if reason else ""
    if status == 429 or status >= 500:
        return LabelStudioUnreachable(
            f"{where} failed with status {status} ({subject}){because}: try again later, or look at its log."
        )
    if 300 <= status < 400:
        target = urlsplit({name.lower(): value for name, value in headers.items()}.get("location", ""))
        to = f" to {target.scheme}://{target.netloc.rpartition('@')[2]}" if target.netloc else ""
        return LabelStudioError(f"{where} redirects{to}: set LABEL_STUDIO_URL to that address.")
    if status == 401:
        return LabelStudioError(
            f"{where} refuses the token in LABEL_STUDIO_API_KEY{because}. Copy one from its page «Account & Settings»."
        )
    if not isinstance(body, dict | list):
        return LabelStudioError(f"{where} answered with a page, status {status} ({subject}): {NOT_LABEL_STUDIO}.")
    if status == 404:
        return LabelStudioLacks(f"{where} knows no {subject}, or this token may not see it: check both.")
    if "reserved network address" in reason:
        return LabelStudioError(f"{where} refused {subject}{because}; {ALLOW_PRIVATE}.")
    if status == 403:
        return LabelStudioError(
            f"{where} does not allow this token {subject}{because}: use the token of a user who may."
        )
    return LabelStudioError(f"{where} refused {subject}{because}.")


def _leaves(errors: Any, field: str = "") -> Iterator[str]:
    """Every text in nested validation errors, with its field."""
    if isinstance(errors, dict):
        for name, inner in errors.items():
            yield from _leaves(inner, "" if name == "non_field_errors" else str(name))
    elif isinstance(errors, list):
        for inner in errors:
            yield from _leaves(inner, field)
    else:
        yield f"{field}: {errors}" if field else str(errors)
