from __future__ import annotations

import tracemalloc
from base64 import b64encode
from urllib.parse import unquote_to_bytes

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clapboard.errors import SourceError, SourceRefused, SourceTooLarge
from clapboard.sources.media import LabelStudioMedia
from clapboard.sources.uris import data_content, read_uri, resolve_url

ANY_SIZE = [].append  # takes any number
LABEL_STUDIO = LabelStudioMedia(httpx.URL("http://ls.example:8080"))


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("/data/upload/3/1a2b-dog.ogg", "http://ls.example:8080/data/upload/3/1a2b-dog.ogg"),
        ("/data/local-files/?d=a%20b/c.wav", "http://ls.example:8080/data/local-files/?d=a%20b/c.wav"),
        ("/tasks/7/resolve/?fileuri=czM6Ly9i", "http://ls.example:8080/tasks/7/resolve/?fileuri=czM6Ly9i"),
        ("  http://Cdn.Example:80/a.wav#t=3  ", "http://cdn.example/a.wav"),
        ("https://cdn.example:443/a b.wav?sig=1", "https://cdn.example/a%20b.wav?sig=1"),
        ("HTTPS://bücher.example/ü.wav", "https://xn--bcher-kva.example/%C3%BC.wav"),
    ],
)
def test_addresses_are_read_into_one_form(uri: str, address: str) -> None:
    source = read_uri(uri, LABEL_STUDIO)
    assert (source.form, source.canonical) == ("http", address)


@pytest.mark.parametrize("uri", ["/data/upload/1/a.wav", "/studio/data/upload/1/a.wav"])
def test_paths_are_joined_to_label_studio_s_base_path_once(uri: str) -> None:
    label_studio = LabelStudioMedia(httpx.URL("https://example.com/studio"))
    assert read_uri(uri, label_studio).canonical == "https://example.com/studio/data/upload/1/a.wav"


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "ftp://example.com/a.wav",
        "gopher://example.com/a",
        "javascript:alert(1)",
        "/etc/passwd",
        "/home/me/dog.wav",
        "/projects/1/data",
        "/api/projects/1/export",
        "//evil.example/data/upload/1/a.wav",
        "\\\\server\\share\\a.wav",
        "C:\\sounds\\dog.wav",
        "dog.wav",
        "../dog.wav",
        "",
        "s3://bucket-only",
        "http://",
        "http:///a.wav",
        "http:example.com/a.wav",
        "http://user:secret@example.com/a.wav",
        "http://example.com\\@ls.example:8080/a.wav",
        "http://example.com:99999/a.wav",
        "http://exa mple.com/a.wav",
        "http://１２７.0.0.1/a.wav",
        "http://%31%32%37.0.0.1/a.wav",
        "http://example.com/\ud800.wav",
        "http://example.com/a\nb.wav",
        "http://[fe80::1%25eth0]/a.wav",
        "http://xn--a/",
        "http://xn--a-.example/a.wav",
        "/data/upload/../../api/projects/1/export",
        "/data/upload/%2e%2e/%2E%2e/api/projects/1/export",
        "/data/upload/%252e%252e/api/projects/1/export",
        "/data/upload/..;/api/projects/1/export",
        "/data/upload/1\\..\\..\\api",
        "/data/upload//1/a.wav",
        "/data/upload/",
        "/data/export/1.json",
        "/tasks/7/resolve/../../api",
        "/storage-data/other/?filepath=x",
        "/ls//data/upload/1/a.wav",
    ],
)
def test_everything_else_is_refused_in_a_sentence_without_secrets(uri: str) -> None:
    with pytest.raises(SourceRefused) as caught:
        read_uri(uri, LABEL_STUDIO)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "secret" not in sentence


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("https://bucket.example/a.wav?X-Amz-Signature=secret#x", "https://bucket.example/a.wav"),
        ("/data/local-files/?d=my%20sounds/a.wav&x=1", "http://ls.example:8080/data/local-files/?d=my sounds/a.wav"),
        ("s3://bucket/dir/a.wav?versionId=secret", "s3://bucket/dir/a.wav"),
        ("data:audio/wav;base64,c2VjcmV0", "data: URI"),
        ("http://x.example/" + "a" * 1000, "http://x.example/" + "a" * 183 + "…"),
    ],
)
def test_names_hold_no_secrets(uri: str, name: str) -> None:
    assert read_uri(uri, LABEL_STUDIO).name == name


def test_cloud_storage_files_are_asked_of_label_studio() -> None:
    source = read_uri("azure-blob://box/ü/dog bark.wav", LABEL_STUDIO)
    assert source.form == "cloud"
    url = resolve_url(source, httpx.URL("http://ls.example/studio"), 12)
    assert url.path == "/studio/tasks/12/resolve/"
    assert url.params["fileuri"] == "YXp1cmUtYmxvYjovL2JveC_DvC9kb2cgYmFyay53YXY="


def test_cloud_storage_files_need_a_task() -> None:
    with pytest.raises(SourceError, match=r"s3://bucket/a\.wav"):
        resolve_url(read_uri("s3://bucket/a.wav", LABEL_STUDIO), LABEL_STUDIO.url, None)


@pytest.mark.parametrize(
    ("uri", "content"),
    [
        ("data:audio/wav;base64,UklGRg==", b"RIFF"),
        ("data:audio/wav;base64,UklGRg", b"RIFF"),
        ("data:;base64,UklG%0AUg%3D%3D", b"RIFR"),
        ("DATA:audio/wav;BASE64,UklG\nRg==", b"RIFF"),
        ("data:,a%00b%ffc", b"a\x00b\xffc"),
        ("data:audio/x;charset=utf-8,", b""),
    ],
)
def test_data_uris_are_decoded(uri: str, content: bytes) -> None:
    assert b"".join(data_content(uri, ANY_SIZE)) == content


@pytest.mark.parametrize("uri", ["data:audio/wav;base64", "data:audio/wav;base64,!!!!", "data:;base64,A"])
def test_malformed_data_uris_are_errors(uri: str) -> None:
    with pytest.raises(SourceError, match="data: URI"):
        list(data_content(uri, ANY_SIZE))


@settings(derandomize=True, database=None)
@given(st.text("%aF0=x\xe4 ", max_size=40), st.integers(1, 7))
def test_data_uris_are_decoded_in_pieces_as_whole_ones_are(payload: str, at_once: int) -> None:
    assert b"".join(data_content(f"data:,{payload}", ANY_SIZE, at_once=at_once)) == unquote_to_bytes(payload)


@settings(derandomize=True, database=None)
@given(st.binary(max_size=40), st.integers(1, 7))
def test_base64_is_decoded_in_pieces_too(content: bytes, at_once: int) -> None:
    uri = f"data:;base64,{b64encode(content).decode()}"
    assert b"".join(data_content(uri, ANY_SIZE, at_once=at_once)) == content


@pytest.mark.parametrize(("payload", "header"), [(30_000_000 * "%00", ""), (40_000_000 * "A", ";base64")])
def test_a_data_uri_beyond_the_bound_is_refused_before_it_is_decoded(payload: str, header: str) -> None:
    sizes: list[int] = []

    def require(num_bytes: int) -> None:
        sizes.append(num_bytes)
        raise SourceTooLarge("It is too large.")

    with pytest.raises(SourceTooLarge):
        next(data_content(f"data:{header},{payload}", require))
    assert sizes == [30_000_000]


def test_escapes_take_little_more_memory_than_their_text() -> None:
    uri = f"data:,{5_000_000 * '%00'}"
    tracemalloc.start()
    num_bytes = sum(map(len, data_content(uri, ANY_SIZE)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num_bytes == 5_000_000
    assert peak < 60_000_000  # 1.1 GB as one list of texts
