"""A real backend that needs credentials. No worker runs: the fixtures announce one in the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clapboard.store.catalog import Encoder
from tests.backend.service_world import LOADED, World
from tests.support.processes import Backend, Installation
from tests.support.waiting import wait_for

ENCODER = Encoder("mini", "0123456789abcdef", "float32", 2, 10.0)
PASSWORD = "s3cret-passw0rd"


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A state folder for the module."""
    with Installation(tmp_path_factory.mktemp("installation"), "mini") as installation:
        yield installation


@pytest.fixture(scope="module")
def backend_before_workers(installation: Installation) -> Backend:
    """A backend before any worker was up."""
    return installation.serve(basic_auth_user="ls", basic_auth_pass=PASSWORD, predict_wait_s=0.1)


@pytest.fixture(scope="module")
def backend(installation: Installation, backend_before_workers: Backend) -> Backend:
    """The backend once a worker has announced its encoder."""
    installation.store.catalog.announce_encoder(ENCODER)
    config = '<View><Audio name="a" value="$a"/><Rating name="r" toName="a"/></View>'
    wait_for(
        lambda: backend_before_workers.setup(config, "999").status_code == 200, "the backend doesn't see the encoder"
    )
    return backend_before_workers


@pytest.fixture
def world_before_workers(tmp_path: Path) -> Iterator[World]:
    """The services before any worker was up."""
    world = World(tmp_path)
    yield world
    world.store.close()


@pytest.fixture
def world(world_before_workers: World) -> World:
    """The services once a worker has announced its encoder."""
    world_before_workers.store.catalog.announce_encoder(ENCODER)
    world_before_workers.store.catalog.worker_alive("a worker", "mini", "cpu", "interactive,batch", LOADED)
    return world_before_workers
