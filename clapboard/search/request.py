"""What `POST /search` is asked, as the backend takes it and a worker reads it. No torch, and no decoder."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_TOP = 1_000
MAX_EXAMPLES = 32
MAX_TEXT_CHARS = 1_000
MAX_AUDIO_CHARS = 16_000_000
"""Of all addresses together: those that are the audio itself, data: URIs, make up a request's size."""

_Second = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]


class SoundRequest(BaseModel):
    """A sound: a task's of the project, or one at an address or in a data: URI; all of it, or a piece."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Annotated[int, Field(ge=1, lt=2**63)] | None = None
    audio: str | None = Field(None, description="address or data: URI")
    start_s: _Second | None = None
    end_s: _Second | None = None

    @model_validator(mode="after")
    def _one_sound(self) -> Self:
        if (self.task is None) == (self.audio is None):
            raise ValueError("give task or audio, one of the two")
        if (self.start_s is None) != (self.end_s is None):
            raise ValueError("give start_s and end_s, or neither")
        if self.start_s is not None and self.end_s is not None and self.start_s >= self.end_s:
            raise ValueError("start_s must come before end_s")
        return self


class SearchRequest(BaseModel):
    """A search in a project: at least one text, or one sound that it shall be like."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    project: Annotated[int, Field(ge=1, lt=2**63)]
    text: _Text | None = None
    texts: tuple[_Text, ...] = ()
    like: tuple[SoundRequest, ...] = ()
    not_like: tuple[SoundRequest, ...] = ()
    top: Annotated[int, Field(ge=1, le=MAX_TOP)] = 20

    @property
    def all_texts(self) -> tuple[str, ...]:
        """`text` and `texts`."""
        return self.texts if self.text is None else (self.text, *self.texts)

    @property
    def addresses(self) -> list[str]:
        """Where the sounds lie that are no task's."""
        return [sound.audio for sound in (*self.like, *self.not_like) if sound.audio is not None]

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        num_wanted = len(self.all_texts) + len(self.like)
        if not num_wanted:
            raise ValueError("give a text, or a sound in like")
        if num_wanted + len(self.not_like) > MAX_EXAMPLES:
            raise ValueError(f"give at most {MAX_EXAMPLES} texts and sounds together")
        if sum(map(len, self.addresses)) > MAX_AUDIO_CHARS:
            raise ValueError(f"send at most {MAX_AUDIO_CHARS} characters of audio: give addresses instead, or pieces")
        return self
