"""SetupService by itself: see `service_world`."""

from __future__ import annotations

import pytest

from clapboard.errors import StoreError
from clapboard.queue.celery_app import LEARN
from tests.backend.service_world import SHOWN, World
from tests.support.fake_label_studio import CHOICES


def test_a_new_label_config_is_stored_and_a_connected_project_learns_and_aligns(world: World) -> None:
    for project in ("1.1", "2.1"):
        world.services.setups.setup(project, CHOICES)
    world.services.setups.store_introductions()
    assert world.store.catalog.project(1).model_version == SHOWN
    assert world.store.jobs.newest() == []
    world.store.catalog.set_connected(2)
    changed = CHOICES.replace("rain", "wind")
    version = world.services.setups.setup("2.1", changed)
    world.services.setups.store_introductions()
    asked = [(job.kind, job.queue, job.project) for job in world.store.jobs.newest()]
    assert asked == [("align", LEARN, 2), ("learn", LEARN, 2)]
    assert world.store.catalog.project(2).label_config == changed
    assert world.store.catalog.project(2).model_version == version


def test_an_introduction_is_not_lost_if_the_store_fails(world: World) -> None:
    world.services.setups.setup("1.1", CHOICES)
    world.store.catalog.set_connected(1)
    with world.store.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE projects RENAME TO away")
    with pytest.raises(StoreError, match="can't be used"):
        world.services.setups.store_introductions()
    with world.store.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO projects")
    world.services.setups.store_introductions()
    assert world.store.catalog.project(1).model_version == SHOWN


def test_a_setup_without_a_project_stores_none(world: World) -> None:
    world.services.setups.setup("", CHOICES)
    world.services.setups.store_introductions()
    with world.store.database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM projects").scalar() == 0
