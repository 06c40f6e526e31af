"""What a server sends that isn't the file itself: gzip, a web page, JSON."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clapboard.errors import SourceError, SourceTooLarge
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from tests.clapboard.sources.test_audio_sources import AUDIO, Answer, Handler, Site

SourcesAt = Callable[..., AudioSources]


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site
        site.shutdown()


@pytest.fixture
def sources(tmp_path: Path, site: Site) -> AudioSources:
    return AudioSources(
        Settings(
            MODEL_DIR=tmp_path / "state",
            LABEL_STUDIO_URL=site.url,
            LABEL_STUDIO_API_KEY="0123456789abcdef0123456789abcdef01234567",
            CLAPBOARD_ALLOW_PRIVATE_URLS=True,
            CLAPBOARD_MAX_AUDIO_MB=1,
        )
    )


def sent(content: bytes, **headers: str) -> Answer:
    return lambda handler: handler.send(content, **headers)


PACKED = {
    "said": sent(gzip.compress(AUDIO), Content_Encoding="gzip", Content_Type="audio/wav"),
    "not said": sent(gzip.compress(AUDIO), Content_Type="application/octet-stream"),
    "said of what isn't": sent(AUDIO, Content_Encoding="gzip", Content_Type="audio/wav"),
    "in two members": sent(gzip.compress(AUDIO[:99]) + gzip.compress(AUDIO[99:])),
}


@pytest.mark.parametrize("how", PACKED)
def test_a_file_that_is_kept_as_gzip_is_unpacked(site: Site, sources: AudioSources, how: str) -> None:
    site.answers["/clips/a.wav"] = PACKED[how]
    assert sources.fetch(f"{site.url}/clips/a.wav").path.read_bytes() == AUDIO


def in_pieces(content: bytes, **headers: str) -> Answer:
    def answer(handler: Handler) -> None:
        start, end = (int(part) for part in handler.headers["Range"].removeprefix("bytes=").split("-"))
        piece = content[start : min(end + 1, start + 100)]
        said = f"bytes {start}-{start + len(piece) - 1}/{len(content)}"
        handler.send(piece, 206, Content_Range=said, **headers)

    return answer


def test_a_file_behind_a_cloud_address_is_unpacked_wherever_it_is_cut(site: Site, sources: AudioSources) -> None:
    site.answers["/tasks/7/resolve/"] = in_pieces(gzip.compress(AUDIO), Content_Encoding="gzip")
    assert sources.fetch("s3://bucket/a.wav", task_id=7).path.read_bytes() == AUDIO
    assert len(site.requests) > 2


PAGES = {
    "web page": (b"<!DOCTYPE html><html><title>Sign in</title></html>", "text/html", "answered with a web page"),
    "disguised": (b"\n  <html>" + b"x" * 5000, "audio/wav", "the server answered with a web page"),
    "json": (json.dumps({"error": "expired", "of": "a" * 2000}).encode(), "application/json", "answered with JSON"),
    "short json": (b'{"detail":"no"}', "application/json", "the server answered with JSON"),
    "broken gzip": (gzip.compress(AUDIO)[:-20], "audio/wav", "incomplete gzip file"),
    "spoilt gzip": (gzip.compress(AUDIO)[:40] + bytes(3000), "audio/wav", "damaged gzip file"),
}


@pytest.mark.parametrize("case", PAGES)
def test_what_is_no_file_is_said_to_be_what_it_is_and_not_tried_again(sources: AudioSources, case: str) -> None:
    body, content_type, told = PAGES[case]
    with Site("127.0.0.2") as elsewhere:
        elsewhere.answers["/clips/a.wav"] = sent(body, Content_Type=content_type)
        with pytest.raises(SourceError, match=told) as caught:
            sources.fetch(f"{elsewhere.url}/clips/a.wav")
        elsewhere.shutdown()
        assert not caught.value.retryable
        assert len(elsewhere.requests) == 1


def test_what_unpacks_to_more_than_the_cap_is_refused(site: Site, sources: AudioSources) -> None:
    site.answers["/clips/a.wav"] = sent(gzip.compress(bytes(50_000_000)), Content_Type="audio/wav")
    with pytest.raises(SourceTooLarge):
        sources.fetch(f"{site.url}/clips/a.wav")
