"""The exception by which a model says how a request is to be answered."""

from __future__ import annotations

from typing import Any


class AnswerException(Exception):  # its name in label-studio-ml
    """An answer with this status, sentence and further result."""

    def __init__(self, status: int, msg: str = "", result: dict[str, Any] | None = None) -> None:
        super().__init__(msg)
        self.status, self.msg, self.result = status, msg, result or {}
