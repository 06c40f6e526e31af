"""The search terms of a command → a request that any worker can answer, even one that can't see the command's files."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence

import numpy as np
from pydantic import ValidationError

from clapboard.audio.windows import SAMPLE_RATE, Waveform, piece_blocks
from clapboard.errors import AudioError, RequestError
from clapboard.search.search_request import MAX_AUDIO_CHARS, SearchRequest, SoundRequest
from clapboard.search.search_terms import LONGEST_S, FileSound, SearchTerms, Sound, TaskSound

_BYTES_PER_CHAR = 3 / 4  # in base64
_HEADER = "data:application/octet-stream;base64,"


def request_for(project: int, terms: SearchTerms, top: int) -> SearchRequest | None:
    """The request, with files inside it as data: URIs. None if they are larger than a request may be.

    A file is sent as it is or, if it is too large, the piece that is searched by, decoded. Raises `AudioError`,
    `RequestError`.
    """
    requests = [_sound_request(sound) for sound in (*terms.like, *terms.not_like)]
    sounds = [request for request in requests if request is not None]
    if len(sounds) < len(requests) or sum(len(sound.audio or "") for sound in sounds) > MAX_AUDIO_CHARS:
        return None
    like, not_like = tuple(sounds[: len(terms.like)]), tuple(sounds[len(terms.like) :])
    try:
        return SearchRequest(project=project, texts=terms.texts, like=like, not_like=not_like, top=top)
    except ValidationError as error:
        faults = "; ".join(item["msg"].removeprefix("Value error, ") for item in error.errors(include_input=False))
        raise RequestError(f"The search can't be sent: {faults}.") from None


def _sound_request(sound: Sound) -> SoundRequest | None:
    """The sound as a request holds it; None for a file that is too large."""
    start_s, end_s = (None, None) if sound.span is None else (sound.span.start_s, sound.span.end_s)
    if isinstance(sound, TaskSound):
        return SoundRequest(task=sound.task, start_s=start_s, end_s=end_s)
    if not isinstance(sound, FileSound):
        return SoundRequest(audio=sound.uri, name=sound.name, start_s=start_s, end_s=end_s)
    name = os.fsencode(sound.name).decode("utf-8", "replace")[:200]
    try:
        if not sound.path.is_file():
            raise AudioError(f"{name} is no file: name an audio file.")
        if sound.path.stat().st_size <= MAX_AUDIO_CHARS * _BYTES_PER_CHAR - len(_HEADER):
            return SoundRequest(audio=_data_uri(sound.path.read_bytes()), name=name, start_s=start_s, end_s=end_s)
    except OSError as error:
        raise AudioError(f"{name} can't be read ({error.strerror}): check its permissions.") from None
    if start_s is None or end_s is None or end_s - start_s > LONGEST_S:
        return None
    content = _flac([*piece_blocks(sound.path, name=name, span=sound.span)])
    return SoundRequest(audio=_data_uri(content), name=name) if len(content) <= MAX_AUDIO_CHARS // 2 else None


def _data_uri(content: bytes) -> str:
    return _HEADER + base64.b64encode(content).decode("ascii")


def _flac(waveforms: Sequence[Waveform]) -> bytes:
    """Mono FLAC at 48 kHz in 24 bits: the same samples as windows are made of, rounded to 2⁻²⁴."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.concatenate(waveforms), SAMPLE_RATE, format="FLAC", subtype="PCM_24")
    return file.getvalue()
