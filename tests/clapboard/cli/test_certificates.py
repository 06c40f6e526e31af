"""Label Studio behind a certificate that its operator signed: what is said, and the way out."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clapboard.cli.conftest import Main
from tests.support.fake_label_studio import TOKEN, FakeLabelStudio


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of 127.0.0.1, with its key."""
    path = tmp_path_factory.mktemp("tls") / "own.pem"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    command = ["openssl", *options.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture(scope="module")
def studio(certificate: Path) -> Iterator[FakeLabelStudio]:
    with FakeLabelStudio(certificate) as label_studio:
        label_studio.tasks[1] = {}
        yield label_studio


def test_a_self_signed_certificate_is_said_so_with_the_way_out(
    typed: Main, studio: FakeLabelStudio, certificate: Path
) -> None:
    settings = {"label_studio_url": studio.url, "label_studio_api_key": TOKEN, "model": "mini"}
    code, said = typed("connect", "--project", "1", **settings)
    assert said == (
        f"error: The certificate of {studio.url} can't be verified (self-signed certificate): if your own authority "
        "has issued it, name that one's certificate file in SSL_CERT_FILE.\n"
    )
    assert code == 3
    code, said = typed("connect", "--project", "1", **settings, certificates=certificate)
    assert "no worker" in said.lower()  # which is what is missing next
    assert code == 3


def test_a_file_without_a_certificate_is_refused(typed: Main, studio: FakeLabelStudio, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    settings = {"label_studio_url": studio.url, "label_studio_api_key": TOKEN}
    code, said = typed("connect", "--project", "1", **settings, certificates=tmp_path / "ca.pem")
    assert said == f"error: SSL_CERT_FILE: {tmp_path / 'ca.pem'} can't be used (it holds no certificate in PEM).\n"
    assert code == 2
