"""`clapboard jobs`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from clapboard.errors import AudioError, SettingsError
from clapboard.queue.celery_app import BATCH, INTERACTIVE
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import JobRequest
from tests.clapboard.cli.conftest import Clapboard, lines


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with a job of each state, one a project."""
    store = Store.open(Settings(MODEL_DIR=tmp_path / "state"))
    payload = {"uri": "https://host.example/a.wav?t0ken"}
    for project in (1, 2, 3):
        store.jobs.add(INTERACTIVE, [JobRequest("predict", project, 10 * project, "v1", payload)])
    done, running = store.jobs.claim("a worker", INTERACTIVE, 2)
    store.jobs.done(done, "Nothing to do.")
    assert running.project == 2
    store.jobs.record_failure(BATCH, JobRequest("predict", 4, 40, "v1"), AudioError("[/red] [b]a.wav[/b] is damaged."))
    yield store
    store.close()


class TestJobs:
    def test_json_tells_everything_but_the_payload(self, clapboard: Clapboard, store: Store) -> None:
        (found,) = lines(clapboard("jobs", "--json"))
        assert found["counts"] == {"interactive": {"queued": 1, "running": 1, "done": 1}, "batch": {"failed": 1}}
        assert [(job["project"], job["state"]) for job in found["jobs"]] == [
            (4, "failed"),
            (3, "queued"),
            (2, "running"),
            (1, "done"),
        ]
        assert found["jobs"][0]["error"] == "[/red] [b]a.wav[/b] is damaged."
        assert found["jobs"][0]["error_code"] == "audio"
        assert found["jobs"][2]["worker"] == "a worker"
        assert "t0ken" not in str(found)
        assert "payload" not in found["jobs"][0]

    def test_project_state_and_limit_choose(self, clapboard: Clapboard, store: Store) -> None:
        def projects(*arguments: str) -> list[int]:
            (found,) = lines(clapboard("jobs", "--json", *arguments))
            return [job["project"] for job in found["jobs"]]

        assert projects("--project", "2") == [2]
        assert projects("--state", "failed") == [4]
        assert projects("--limit", "2") == [4, 3]
        assert projects("--project", "1", "--state", "failed") == []

    def test_what_fails_again_for_the_same_reason_is_the_newest_and_there_once(
        self, clapboard: Clapboard, store: Store
    ) -> None:
        first = lines(clapboard("jobs", "--json"))[0]["jobs"][0]
        store.jobs.add(INTERACTIVE, [JobRequest("predict", 5, 50, "v1")])
        request = JobRequest("predict", 4, 40, "v1")
        store.jobs.record_failure(BATCH, request, AudioError("[/red] [b]a.wav[/b] is damaged."))
        found = lines(clapboard("jobs", "--json"))[0]["jobs"]
        assert [job["project"] for job in found] == [4, 5, 3, 2, 1]
        assert found[0]["created_at"] > first["created_at"]

    def test_people_get_a_table_with_reasons_word_for_word(self, clapboard: Clapboard, store: Store) -> None:
        done = clapboard("jobs")
        assert done.exit_code == 0, done.exception
        assert "[/red] [b]a.wav[/b] is damaged." in done.stdout
        assert "interactive: 1 queued" in done.stdout
        assert "t0ken" not in done.stdout

    def test_how_far_a_project_is_and_how_long_it_takes_yet_is_told(self, clapboard: Clapboard, store: Store) -> None:
        store.jobs.add(BATCH, [JobRequest("predict", 5, task, "v1") for task in range(1, 11)])
        for job in store.jobs.claim("a worker", BATCH, 4):
            store.jobs.done(job)
        with store.database.write() as connection:  # as if they had taken 2 s each
            connection.exec_driver_sql("UPDATE jobs SET started_at = finished_at - 8 WHERE project = 5 AND worker > ''")
        found = [one for one in lines(clapboard("jobs", "--json"))[0]["under_way"] if one["project"] == 5]
        assert [(one["queue"], one["model_version"], one["num_done"], one["num_total"]) for one in found] == [
            ("batch", "v1", 4, 10)
        ]
        assert 0.2 < found[0]["per_s"] <= 0.5
        assert found[0]["eta_s"] == pytest.approx(6 / found[0]["per_s"])
        text = clapboard("jobs", "--project", "5").stdout
        row = next(line for line in text.splitlines() if "predictions, batch" in line)
        assert re.search(r"v1 +│ +4 │ +10 │ +0\.\d+ │ +\d+ s │$", row), row

    def test_a_time_that_nobody_knows_is_not_told(self, clapboard: Clapboard, store: Store) -> None:
        (found,) = lines(clapboard("jobs", "--json", "--project", "3"))
        (one,) = found["under_way"]
        assert (one["num_done"], one["num_total"], one["per_s"], one["eta_s"]) == (0, 1, None, None)
        assert "not known" in clapboard("jobs", "--project", "3").stdout

    def test_where_nothing_is_under_way_nothing_is_said_of_it(self, clapboard: Clapboard, store: Store) -> None:
        assert lines(clapboard("jobs", "--json", "--project", "1"))[0]["under_way"] == []
        assert "Under way" not in clapboard("jobs", "--project", "1").stdout

    def test_an_empty_queue_says_so(self, clapboard: Clapboard) -> None:
        assert "no jobs" in clapboard("jobs").stdout

    def test_a_state_that_does_not_exist_is_refused(self, clapboard: Clapboard) -> None:
        done = clapboard("jobs", "--state", "lost")
        assert isinstance(done.exception, SettingsError)
        assert "queued, running, done, failed" in str(done.exception)
