"""A real backend that asks for credentials, without any worker: what it needs of one is announced in its store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clapboard.store.catalog import Encoder
from tests.support.processes import Backend, Installation, wait_for

ENCODER = Encoder("mini", "0123456789abcdef", "float32", 2, 10.0)
PASSWORD = "s3cret-passw0rd"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A state folder of the module's own."""
    with Installation(tmp_path_factory.mktemp("house"), "mini") as installation:
        yield installation


@pytest.fixture(scope="module")
def lonely(house: Installation) -> Backend:
    """A backend before any worker was up."""
    return house.serve(basic_auth_user="ls", basic_auth_pass=PASSWORD, predict_wait_s=0.1)


@pytest.fixture(scope="module")
def backend(house: Installation, lonely: Backend) -> Backend:
    """The backend once a worker has announced its encoder."""
    house.store.catalog.announce_encoder(ENCODER)
    config = '<View><Audio name="a" value="$a"/><Rating name="r" toName="a"/></View>'
    wait_for(lambda: lonely.setup(config, "999").status_code == 200, "the backend doesn't see the encoder")
    return lonely
