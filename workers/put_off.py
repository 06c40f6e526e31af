"""The exception with which a job says that it has come as far as it can for now."""

from __future__ import annotations


class PutOff(Exception):
    """The job is to be queued again for `delay_s` later; the message says how far it is."""

    def __init__(self, delay_s: float, progress: str) -> None:
        super().__init__(progress)
        self.delay_s = delay_s
