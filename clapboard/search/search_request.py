"""The body of `POST /search`, as the backend accepts it and a worker reads it. Needs no torch and no decoder."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema, model_validator

from clapboard.untrusted import whole_number

MAX_TOP = 1_000
MAX_ID = 2**53 - 1  # JSON readers round larger numbers
MAX_EXAMPLES = 32
MAX_TEXT_CHARS = 1_000
MAX_AUDIO_CHARS = 16_000_000
"""How long all addresses may be together: data: URIs, which hold the audio itself, make up a request's size."""

_Id = Annotated[int, Field(strict=True, ge=1, le=MAX_ID), BeforeValidator(whole_number)]
_Top = Annotated[int, Field(strict=True, ge=1, le=MAX_TOP), BeforeValidator(whole_number)]
_Second = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
_Address = Annotated[str, WithJsonSchema({"type": "string", "format": "audio-address"})]
_Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]


# What the validators below refuse, as far as JSON schema can express it.
_ABSENT: dict[str, JsonValue] = {"type": "null"}
_ONE_SOUND: dict[str, JsonValue] = {
    "oneOf": [
        {"required": ["task"], "properties": {"task": {"type": "integer"}, "audio": _ABSENT}},
        {"required": ["audio"], "properties": {"audio": {"type": "string"}, "task": _ABSENT}},
    ],
    "anyOf": [
        {"properties": {"start_s": _ABSENT, "end_s": _ABSENT}},
        {"required": ["start_s", "end_s"], "properties": {"start_s": {"type": "number"}, "end_s": {"type": "number"}}},
    ],
}
_ONE_TERM: dict[str, JsonValue] = {
    "anyOf": [
        {"required": ["text"], "properties": {"text": {"type": "string"}}},
        {"required": ["texts"], "properties": {"texts": {"minItems": 1}}},
        {"required": ["like"], "properties": {"like": {"minItems": 1}}},
    ]
}


class SoundRequest(BaseModel):
    """A sound: a task's, or one at an address or in a data: URI; all of it, or from `start_s` to `end_s`."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_ONE_SOUND)

    task: _Id | None = None
    audio: Annotated[_Address | None, Field(description="address or data: URI")] = None
    name: Annotated[_Text | None, Field(description="what errors call it")] = None
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
    """A search in a project, for at least one text or sound."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_ONE_TERM)

    project: _Id
    text: _Text | None = None
    texts: tuple[_Text, ...] = ()
    like: tuple[SoundRequest, ...] = ()
    not_like: tuple[SoundRequest, ...] = ()
    top: _Top = 20

    @property
    def all_texts(self) -> tuple[str, ...]:
        """`text` and `texts`."""
        return self.texts if self.text is None else (self.text, *self.texts)

    @property
    def addresses(self) -> list[str]:
        """The addresses of all sounds that aren't a task's."""
        return [sound.audio for sound in (*self.like, *self.not_like) if sound.audio is not None]

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        num_terms = len(self.all_texts) + len(self.like)
        if not num_terms:
            raise ValueError("give a text, or a sound in like")
        if num_terms + len(self.not_like) > MAX_EXAMPLES:
            raise ValueError(f"give at most {MAX_EXAMPLES} texts and sounds together")
        if sum(map(len, self.addresses)) > MAX_AUDIO_CHARS:
            raise ValueError(f"send at most {MAX_AUDIO_CHARS} characters of audio: give addresses instead, or pieces")
        return self
