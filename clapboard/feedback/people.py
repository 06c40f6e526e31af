"""The names of annotators, who are Label Studio's users. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

from clapboard.feedback.suggestions import annotations_in

_LONGEST = 200


def names_in(body: Mapping[str, Any]) -> dict[int, str]:
    """By user id, the names of an event's annotators, as far as the event has them."""
    names = {}
    for annotation in annotations_in(body):
        user, username = annotation.get("completed_by"), annotation.get("created_username")
        user_id = user.get("id") if isinstance(user, Mapping) else user
        if _is_id(user_id) and isinstance(username, str) and (name := _name(username, user_id)):
            names[user_id] = name
    return names


def display_names(user_ids: Iterable[int], names: Mapping[int, str]) -> dict[int, str]:
    """By user id, the name to show: with the id if several users have that name, and without a name only the id."""
    ids = list(user_ids)
    listed = [names.get(user_id, "") for user_id in ids]
    return {
        user_id: "somebody" if not user_id else f"user {user_id}" if not name else _unique(name, user_id, listed)
        for user_id, name in zip(ids, listed, strict=True)
    }


def _is_id(number: Any) -> TypeGuard[int]:
    return isinstance(number, int) and not isinstance(number, bool) and 0 < number < 2**63


def _unique(name: str, user_id: int, names: list[str]) -> str:
    return f"{name} ({user_id})" if names.count(name) > 1 else name


def _name(username: str, user_id: int) -> str:
    """The name in Label Studio's «First Last first@example.org, 7», or else the address."""
    text = username.removesuffix(f", {user_id}")
    name, _, address = text.rpartition(" ")
    shown = " ".join((name or address).split())[:_LONGEST]
    return shown if "\0" not in shown and shown.isprintable() else ""
