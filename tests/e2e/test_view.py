"""What people see in Label Studio while the backend is stopped, in a real browser, and what the ledger makes of it."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import soundfile
from playwright.sync_api import Page

from clapboard.audio.windows import SAMPLE_RATE
from clapboard.feedback.entries import Entry, Outcome
from clapboard.label_studio.checks import STORED_TITLE
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.links import task_url
from clapboard.project.tabs import HELD_OUT, NO_AUDIO, NOT_YET, NOTHING_HEARD, TABS, UNSURE
from demo.browser import logged_in, ticked
from demo.label_studio_server import LabelStudioServer
from tests.support.processes import Installation, Running
from tests.support.programs import free_port, needs_program
from tests.support.waiting import WAIT_S, wait_for
from training.sounds.synthesis import synthesise

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

KINDS = ("dog bark", "rain", "siren", "clock tick")
CONFIG = f"""<View>
  <Audio name="audio" value="$audio"/>
  <Choices name="sound" toName="audio">{"".join(f'<Choice value="{kind}"/>' for kind in KINDS)}</Choices>
</View>"""
SELDOM_SURE = CONFIG.replace('toName="audio"', 'toName="audio" choice="multiple" model_score_threshold="1"')
SEED = 20_000


class Site:
    """A Clapboard beside the real Label Studio, at one address, that can be stopped and started again."""

    def __init__(self, house: Installation, client: LabelStudioClient, api: httpx.Client, port: int) -> None:
        self.house, self.client, self.api = house, client, api
        self._port = port
        self.up: Running
        self.start()

    def start(self) -> None:
        """Backend and worker."""
        self.up = self.house.serve("up", port=self._port).process
        wait_for(lambda: self.house.store.catalog.workers(5.0), "the worker didn't come")

    def stop(self) -> None:
        """Both, in good order."""
        self.up.stop()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{self._port}/health", trust_env=False)

    def run(self, *arguments: str, **settings: Any) -> str:
        """The output of a `clapboard` command that must succeed."""
        done = self.house.run(*arguments, **settings)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def connected(
        self, title: str, *kinds: str, test_share: float = 0.0, config: str = CONFIG
    ) -> tuple[int, list[int]]:
        """A connected project with a clip of each kind."""
        project = self.client.create_project(title, config).id
        tasks = self.import_clips(project, *kinds)
        report = json.loads(self.run("connect", "--project", str(project), "--json", test_share=test_share))
        assert report["warnings"] == []
        return project, tasks

    def import_clips(self, project: int, *kinds: str) -> list[int]:
        """New tasks, each a clip of that kind."""
        return self.client.import_tasks(project, [{"audio": _clip(kind, seed)} for seed, kind in enumerate(kinds)])

    def shows_stored(self, project: int) -> bool:
        """Whether Label Studio asks nobody for the project."""
        return [backend.title for backend in self.client.backends(project)] == [STORED_TITLE]

    def next_task(self, project: int) -> dict[str, Any]:
        """What the label stream loads."""
        return dict(self.api.get(f"/api/projects/{project}/next").raise_for_status().json())

    def listed(self, project: int) -> dict[str, list[int]]:
        """The tasks that our tabs list."""
        ours = self.house.store.tabs.of_project(project)
        pages = {name: self.api.get("/api/tasks", params={"project": project, "view": ours[name]}) for name in ours}
        return {name: sorted(task["id"] for task in answer.json()["tasks"]) for name, answer in pages.items()}

    def predictions(self, task: int, model_version: str = "") -> list[dict[str, Any]]:
        """What is stored for the task."""
        found = self.api.get("/api/predictions/", params={"task": task}).raise_for_status().json()
        return [one for one in found if model_version in ("", one["model_version"])]

    def next_of(self, task: int) -> dict[str, Any]:
        """The suggestion that whoever opens the task has in view."""
        (shown,) = self.api.get(f"/api/tasks/{task}").raise_for_status().json()["predictions"]
        return dict(shown)

    def annotate(self, task: int, shown: dict[str, Any]) -> int:
        """The annotation of somebody who corrects it, as the page sends it."""
        (suggested,) = shown["result"][0]["value"]["choices"]
        result = [shown["result"][0] | {"value": {"choices": [_another(suggested)]}}]
        body = {"result": result, "parent_prediction": shown["id"], "lead_time": 2.0}
        return int(self.api.post(f"/api/tasks/{task}/annotations", json=body).raise_for_status().json()["id"])

    def judged(self, project: int, num_annotations: int) -> list[Entry]:
        """What the ledger holds once it knows of so many annotations."""

        def standing() -> list[Entry]:
            self.house.store.ledger.catch_up()
            found = self.house.store.ledger.standing(project)
            return found if len({entry.annotation for entry in found}) == num_annotations else []

        return wait_for(standing, "the ledger doesn't hold what was said")


class LabelStream:
    """«Label All Tasks», as a person uses it."""

    def __init__(self, page: Page, url: str) -> None:
        self._page = page
        self._url = url

    def begin(self, project: int) -> int:
        """The task that comes first."""
        self._page.goto(f"{self._url}/projects/{project}/data", wait_until="domcontentloaded")
        with self._page.expect_response(lambda answer: "id=next_task" in answer.url) as loaded:
            self._page.get_by_text("Label All Tasks").first.click()
        return int(loaded.value.json()["id"])

    def submit(self) -> None:
        """What stands in the form."""
        with self._page.expect_response(
            lambda answer: answer.request.method == "POST" and "/annotations" in answer.url
        ) as stored:
            self._page.get_by_test_id("bottombar-submit-button").click()
        assert stored.value.ok, stored.value.text()


def _clip(kind: str, seed: int) -> str:
    file = io.BytesIO()
    soundfile.write(file, synthesise(kind, SEED + seed, 2.0), SAMPLE_RATE, format="FLAC")
    return f"data:audio/flac;base64,{base64.b64encode(file.getvalue()).decode()}"


@pytest.fixture(scope="module")
def site(label_studio: LabelStudioServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    settings = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.token}
    port = free_port()
    here = settings | {"url": f"http://127.0.0.1:{port}", "train_after": 0, "prune_quiet_s": 1, "prune_after_s": 2}
    headers = {"Authorization": f"Token {label_studio.token}"}
    with (
        Installation(tmp_path_factory.mktemp("house"), "mini", **here) as house,
        LabelStudioClient(house.settings) as client,
        httpx.Client(base_url=label_studio.url, headers=headers, timeout=60, trust_env=False) as api,
    ):
        yield Site(house, client, api, port)


@pytest.fixture(scope="module")
def page(label_studio: LabelStudioServer) -> Iterator[Page]:
    with logged_in(
        label_studio.url, label_studio.email, label_studio.password, chromium=needs_program("chromium")
    ) as page:
        page.set_default_timeout(1000 * WAIT_S)
        yield page


def test_with_the_backend_stopped_people_see_what_is_stored_and_the_ledger_judges_what_they_saw(
    site: Site, page: Page, label_studio: LabelStudioServer
) -> None:
    project, tasks = site.connected("Pre-labelled", *KINDS)
    opened_only, (first,) = site.connected("Not pre-labelled", KINDS[0])
    assert not site.shows_stored(project)  # nothing is stored: whoever opens a task has to be answered
    site.run("prelabel", "--project", str(project))
    wait_for(lambda: site.shows_stored(project), "Label Studio goes on asking for a project that is pushed")
    suggested = {task["id"]: _choice(task) for task in _tasks(site, project)}
    assert len(site.next_task(opened_only)["predictions"]) == 1  # asked for as it was opened
    assert not site.shows_stored(opened_only)
    assert "NO " not in site.run("doctor", "--project", str(project))

    site.stop()
    stream = LabelStream(page, label_studio.url)
    # In the label stream, one after another: accept, correct.
    for number, task in enumerate(tasks[:2]):
        assert stream.begin(project) == task
        _wait_until_ticked(page, suggested[task])
        if number:
            page.locator(f".lsf-choice input[name='{_another(suggested[task])}']").check()
        stream.submit()
    # From the Data Manager.
    page.goto(task_url(label_studio.url, project, tasks[3]), wait_until="domcontentloaded")
    _wait_until_ticked(page, suggested[tasks[3]])
    # A project that had to ask shows an empty form meanwhile.
    assert stream.begin(opened_only) == first
    assert _ticked_at_last(page) == ()
    page.locator(f".lsf-choice input[name='{KINDS[0]}']").check()
    stream.submit()

    site.start()  # which reads what was said meanwhile
    seen = {entry.task: (entry.outcome, bool(entry.model_version)) for entry in site.judged(project, 2)}
    assert seen == {tasks[0]: (Outcome.ACCEPTED, True), tasks[1]: (Outcome.RELABELLED, True)}
    (unseen,) = site.judged(opened_only, 1)
    assert (unseen.outcome, unseen.model_version, unseen.suggested) == (Outcome.ADDED, "", [])


def test_tabs_tell_what_an_empty_form_means(site: Site, page: Page, label_studio: LabelStudioServer) -> None:
    project, tasks = site.connected("Tabs", *KINDS, *KINDS, test_share=0.5, config=SELDOM_SURE)
    (broken,) = site.client.import_tasks(project, [{"audio": "data:audio/wav;base64,bm8gYXVkaW8=", "recording": "b"}])
    assert [tab.data["title"] for tab in site.client.tabs(project)] == ["Default", *TABS]
    mine = site.client.add_tab(project, {"title": HELD_OUT, "ordering": ["-tasks:id"]})
    untouched = next(tab for tab in site.client.tabs(project) if tab.id == mine)
    site.house.run("prelabel", "--project", str(project))  # one of them fails
    held_out = site.house.store.tasks.held_out(project)
    assert 0 < len(held_out) < len(tasks)
    heard = sorted({*tasks} - {*held_out})
    expected = {HELD_OUT: sorted({*held_out} - {broken}) + [broken] * (broken in held_out), NOTHING_HEARD: heard}
    expected |= {NO_AUDIO: [broken] * (broken not in held_out), NOT_YET: []}
    wait_for(lambda: site.listed(project) == expected | {UNSURE: heard}, "the tabs don't tell the tasks apart")

    # Somebody renames a tab and takes the list out of another; connected once more, both stay, and none comes twice.
    by_title = {tab.data["title"]: tab for tab in site.client.tabs(project) if tab.id != mine}
    by_title[NO_AUDIO].data["title"] = "broken ones"
    by_title[NOT_YET].data["filters"]["items"] = []
    for title in (NO_AUDIO, NOT_YET):
        site.client.change_tab(project, by_title[title])
    site.run("connect", "--project", str(project))
    titles = {"Default", UNSURE, HELD_OUT, "broken ones", NOTHING_HEARD, NOT_YET}
    assert {tab.data["title"] for tab in site.client.tabs(project) if tab.id != mine} == titles
    assert len(site.client.tabs(project)) == len(titles) + 1
    assert next(tab for tab in site.client.tabs(project) if tab.id == mine) == untouched

    # In the browser, where a held-out task shows no suggestion and one in which nothing was heard shows its version.
    page.goto(f"{label_studio.url}/projects/{project}/data?tab={by_title[HELD_OUT].id}", wait_until="domcontentloaded")
    page.get_by_text(f"Tasks: {len(held_out)} / {len(tasks) + 1}").first.wait_for()
    page.goto(task_url(label_studio.url, project, heard[0]), wait_until="domcontentloaded")
    page.locator("[title^='Prediction score']").first.wait_for()
    assert _ticked_at_last(page) == ()
    page.goto(task_url(label_studio.url, project, held_out[0]), wait_until="domcontentloaded")
    assert _ticked_at_last(page) == ()
    assert page.locator("[title^='Prediction score']").count() == 0


def test_what_was_imported_while_nobody_was_there_is_pre_labelled_when_somebody_is(site: Site) -> None:
    project, _ = site.connected("Left alone", KINDS[0])
    site.run("prelabel", "--project", str(project))
    site.stop()
    missed = site.import_clips(project, KINDS[1], KINDS[2])
    time.sleep(1.5)  # Label Studio gives its webhook a second, once
    site.start()
    wait_for(lambda: all(len(site.predictions(task)) == 1 for task in missed), "what was imported was missed")
    wait_for(lambda: "A worker is ready." in site.up.log, "it doesn't say that it is ready")
    assert f"clapboard prelabel --project {project}" not in site.up.log, "that has been done"


def test_an_annotation_keeps_the_suggestion_that_its_person_had_in_view(site: Site) -> None:
    project, tasks = site.connected("Replaced", *KINDS, *KINDS, *KINDS)
    site.run("prelabel", "--project", str(project))
    opened = {task: site.next_of(task) for task in tasks[:4]}
    annotated = {task: site.annotate(task, found) for task, found in opened.items()}
    site.judged(project, len(annotated))
    before = opened[tasks[0]]["model_version"]
    config = CONFIG.replace('value="siren"', 'value="siren" predicted_values="ambulance"')
    site.api.patch(f"/api/projects/{project}", json={"label_config": config}).raise_for_status()
    wait_for(lambda: site.client.project(project).model_version != before, "no other version took over")
    wait_for(lambda: not site.predictions(tasks[-1], before), "the replaced version stays")
    export = site.api.get(f"/api/projects/{project}/export", params={"exportType": "JSON"}).raise_for_status().json()
    kept = {task["id"]: [one["id"] for one in site.predictions(task["id"], before)] for task in export}
    assert kept == {task: [found["id"]] for task, found in opened.items()}
    assert {one["id"]: one["annotations"][0]["parent_prediction"] for one in export} == {
        task: found["id"] for task, found in opened.items()
    }
    assert annotated.keys() == opened.keys()


def _wait_until_ticked(page: Page, choice: str) -> None:
    """Label Studio builds its page twice: it is ticked at last."""
    wait_for(lambda: ticked(page) == (choice,), f"{choice} isn't ticked")


def _ticked_at_last(page: Page) -> tuple[str, ...]:
    """What is ticked once nothing more will be: the audio is there, and then some."""
    page.locator("[data-testid=timebox-end-time] input").wait_for()
    page.wait_for_timeout(2_000)
    return ticked(page)


def _tasks(site: Site, project: int) -> list[dict[str, Any]]:
    query = {"project": project, "fields": "all", "page_size": 1000}
    return list(site.api.get("/api/tasks", params=query).raise_for_status().json()["tasks"])


def _choice(task: dict[str, Any]) -> str:
    (prediction,) = task["predictions"]
    return str(prediction["result"][0]["value"]["choices"][0])


def _another(kind: str) -> str:
    return next(other for other in KINDS if other != kind)
