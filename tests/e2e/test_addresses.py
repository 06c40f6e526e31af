"""A real Label Studio that is reached by another address than its public one, with an S3 beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from clapboard.errors import SourceRefused
from clapboard.installation.public_address import audio_sources
from clapboard.settings import env_name
from demo.label_studio_server import LabelStudioServer
from tests.support.audio_server import wav
from tests.support.fixtures_label_studio import CHOICES, needs_label_studio
from tests.support.processes import Installation
from tests.support.waiting import wait_for

pytestmark = pytest.mark.e2e

PUBLIC = "http://public.example/ls"
KEYS = {"aws_access_key_id": "a-key", "aws_secret_access_key": "a-secret"}


@dataclass
class Studio:
    """Label Studio, its API, the S3 on another port of the same host name, and Clapboard."""

    server: LabelStudioServer
    api: httpx.Client
    s3: str
    house: Installation
    files: Path

    def project(self) -> int:
        made = self.api.post("/api/projects", json={"title": "Addresses", "label_config": CHOICES})
        return int(made.raise_for_status().json()["id"])

    def tasks(self, project: int) -> dict[int, str]:
        listed = self.api.get("/api/tasks", params={"project": project, "fields": "all", "resolve_uri": False})
        return {task["id"]: task["data"]["audio"] for task in listed.raise_for_status().json()["tasks"]}

    def fetch(self, uri: str, task: int, **settings: Any) -> bytes:
        chosen = self.house.settings.with_overrides(**settings)
        return audio_sources(chosen, self.house.store).fetch(uri, task_id=task).path.read_bytes()


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    needs_label_studio()
    folder = tmp_path_factory.mktemp("addresses")
    (folder / "files" / "clips").mkdir(parents=True)
    environment = {
        "LABEL_STUDIO_HOST": PUBLIC,
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(folder / "files"),
    }
    storage = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with LabelStudioServer(folder / "label-studio", environment=environment) as server:
        storage.start()
        settings = {"label_studio_url": server.url, "label_studio_api_key": server.token}
        headers = {"Authorization": f"Token {server.token}"}
        with (
            Installation(folder / "house", "mini", **settings) as house,
            httpx.Client(base_url=server.url, headers=headers, timeout=60, trust_env=False) as api,
        ):
            yield Studio(server, api, f"http://localhost:{storage.get_host_and_port()[1]}", house, folder / "files")
        storage.stop()


def test_files_named_by_the_public_address_come_once_label_studio_has_told_it(studio: Studio) -> None:
    project = studio.project()
    upload = {"file": ("a dog.wav", wav(1))}
    studio.api.post(f"/api/projects/{project}/import", files=upload).raise_for_status()
    (studio.files / "clips" / "x.wav").write_bytes(wav(2))
    local = {"project": project, "path": str(studio.files / "clips"), "use_blob_urls": True, "title": "local"}
    made = studio.api.post("/api/storages/localfiles", json=local).raise_for_status().json()
    studio.api.post(f"/api/storages/localfiles/{made['id']}/sync").raise_for_status()
    (upload_task, uploaded), (local_task, served) = sorted(studio.tasks(project).items())
    assert uploaded.startswith("/ls/data/upload/")
    assert served == f"{PUBLIC}/data/local-files/?d=clips/x.wav"
    assert studio.fetch(uploaded, upload_task) == wav(1)
    with pytest.raises(Exception, match=r"If http://public\.example is Label Studio, set LABEL_STUDIO_HOST"):
        studio.fetch(served, local_task)
    assert studio.fetch(served, local_task, label_studio_host=PUBLIC, model_dir=studio.files / "other") == wav(2)
    backend = studio.house.serve()
    title = {"url": str(backend.client.base_url).rstrip("/"), "project": project, "title": "clapboard"}
    studio.api.post("/api/ml", json=title)  # refused without a worker; but by then it has said who it is
    catalog = studio.house.store.catalog
    wait_for(lambda: catalog.public_address(studio.server.url) == PUBLIC, "Label Studio told its address")
    assert studio.fetch(served, local_task) == wav(2)


@pytest.mark.parametrize("presign", [True, False], ids=["presigned", "proxied"])
def test_a_storage_on_another_port_of_label_studio_s_host_name(studio: Studio, presign: bool) -> None:
    bucket = f"clips-{presign}".lower()
    client = boto3.client("s3", endpoint_url=studio.s3, region_name="us-east-1", **KEYS)
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="dog.wav", Body=wav(3))
    project = studio.project()
    place = {"project": project, "bucket": bucket, "s3_endpoint": studio.s3, "region_name": "us-east-1", **KEYS}
    choices = {"use_blob_urls": True, "presign": presign, "title": "s3"}
    made = studio.api.post("/api/storages/s3", json=place | choices).raise_for_status().json()
    studio.api.post(f"/api/storages/s3/{made['id']}/sync").raise_for_status()
    ((task, uri),) = studio.tasks(project).items()
    assert uri == f"s3://{bucket}/dog.wav"
    if presign:
        with pytest.raises(SourceRefused, match=r"localhost, which is a loopback address.*CLAPBOARD_ALLOWED_HOSTS"):
            studio.fetch(uri, task)
    assert studio.fetch(uri, task, allowed_hosts=("localhost",) if presign else ()) == wav(3)


def test_an_export_is_no_audio_and_gets_no_token(studio: Studio) -> None:
    uri = f"{studio.server.url}/api/projects/{studio.project()}/export?exportType=JSON"
    with pytest.raises(Exception, match="a page of Label Studio that requires a login, not one of its audio files"):
        studio.fetch(uri, 1, allow_private_urls=True)
    assert env_name("label_studio_host") == "LABEL_STUDIO_HOST"  # as Label Studio calls it
