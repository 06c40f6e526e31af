"""README's commands with nobody setting a password, on a real Label Studio; and what web pages can do meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, Route, sync_playwright

from clapboard.label_studio.client import LabelStudioClient
from demo.label_studio_server import LabelStudioServer
from tests.support.fixtures_label_studio import CHOICES
from tests.support.processes import Backend, Installation
from tests.support.programs import free_port, needs_program
from tests.support.waiting import WAIT_S, wait_for

pytestmark = pytest.mark.e2e

EVIL = "evil.example"
GUARDS = "LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests,PrivateNetworkAccessRespectPreflightResults"
# As a page of somebody else's can: without asking first, by what needs no permission, and by what does.
ATTACK = """async (url) => {
  const event = JSON.stringify({action: "START_TRAINING", project: 1});
  const tries = [
    () => fetch(url + "/webhook", {method: "POST", body: event, mode: "no-cors"}),
    () => fetch(url + "/webhook", {method: "POST", body: new Blob([event]), mode: "no-cors"}),
    () => fetch(url + "/train", {method: "POST", body: '{"project": 1}', mode: "no-cors"}),
    () => fetch(url + "/webhook", {method: "POST", body: event, headers: {"Content-Type": "application/json"}}),
    () => fetch(url + "/ledger?project=1"),
  ];
  const told = [];
  for (const one of tries) {
    try { const answer = await one(); told.push(answer.status + ": " + (await answer.text()).slice(0, 40)); }
    catch (error) { told.push(error.name); }
  }
  return told;
}"""
READ = (
    """async () => { const answer = await fetch("/ledger?project=1"); return [answer.status, await answer.text()]; }"""
)


@pytest.fixture(scope="module")
def house(label_studio: LabelStudioServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A state folder beside the real Label Studio."""
    addresses = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.token}
    with Installation(tmp_path_factory.mktemp("house"), "mini", test_share=0, **addresses) as installation:
        yield installation


@pytest.fixture(scope="module")
def up(house: Installation) -> Backend:
    """`clapboard up`, before anybody has connected anything."""
    backend = house.serve("up")
    wait_for(lambda: house.store.catalog.encoder("mini"), "no worker has come up")
    return backend


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page of somebody else's, whose name server leads to this machine."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=needs_program("chromium"),
            # Newer ones ask before a page may reach this machine: older ones, and a click on «Allow», don't.
            args=["--no-sandbox", f"--host-resolver-rules=MAP {EVIL} 127.0.0.1", f"--disable-features={GUARDS}"],
        )
        page = browser.new_page()
        page.set_default_timeout(1000 * WAIT_S)
        yield page
        browser.close()


def test_no_page_of_another_origin_writes_or_reads_before_there_is_a_password(
    house: Installation, up: Backend, page: Page
) -> None:
    show(page, f"http://{EVIL}:{free_port()}/")
    told = page.evaluate(ATTACK, f"http://localhost:{up.client.base_url.port}")
    assert told == ["0: ", "0: ", "0: ", "TypeError", "TypeError"]
    assert house.store.inbox.events() == []
    assert house.store.jobs.newest() == []
    assert up.client.post("/webhook", json={"action": "STATION_CHECK"}).status_code == 201  # a program's


def test_no_page_reads_by_a_name_that_suddenly_leads_here(up: Backend, page: Page) -> None:
    show(page, f"http://{EVIL}:{up.client.base_url.port}/")
    status, text = page.evaluate(READ)
    assert status == 403
    assert "CLAPBOARD_HOST_NAMES" in text


def test_connect_makes_a_password_and_gives_it_to_label_studio(
    house: Installation, up: Backend, label_studio_client: LabelStudioClient, label_studio_api: httpx.Client
) -> None:
    port = up.client.base_url.port
    first, second = (label_studio_client.create_project(title, CHOICES).id for title in ("First", "Second"))
    # As a release before connected it: without a password, and known to the store.
    label_studio_client.add_backend(second, url=f"http://localhost:{port}", title="old")
    house.store.catalog.put_project(second, CHOICES, "old")
    house.store.catalog.set_connected(second)
    told = json.loads(house.run("connect", "--project", str(first), "--json", port=port).stdout)
    assert told["warnings"] == []
    assert any("clapboard config --password" in change for change in told["changes"])
    user, _, password = house.run("config", "--password").stdout.strip().partition(":")
    address = up.client.base_url.join("/versions")
    wait_for(lambda: httpx.get(address, trust_env=False).status_code == 401, "the backend asks for no password")
    assert httpx.get(address, auth=(user, password), trust_env=False).status_code == 200
    for project in (first, second):
        wait_for(lambda: is_connected(label_studio_client, project), "it doesn't get through")  # noqa: B023
        before = len(house.store.inbox.events(project=project))
        (task,) = label_studio_client.import_tasks(project, [{"audio": "/a.wav"}])

        def annotation_is_heard_of() -> bool:
            """Said again until it is: Label Studio gives its webhook a second, once."""
            said = label_studio_api.post(f"/api/tasks/{task}/annotations/", json={"result": []})  # noqa: B023
            said.raise_for_status()
            time.sleep(0.5)
            return len(house.store.inbox.events(project=project)) > before + 1  # noqa: B023

        wait_for(annotation_is_heard_of, "no event has come")
    again = json.loads(house.run("connect", "--project", str(first), "--json", port=port).stdout)
    assert (again["changes"], again["warnings"]) == ([], [])
    done = house.run("doctor", "--project", str(first), "--json", port=port)
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert all(checks[name]["ok"] for name in ("token", "backend", "webhook", "model version", "http backend"))
    assert password not in house.logs


def is_connected(client: LabelStudioClient, project: int) -> bool:
    """Whether Label Studio, which asks it now, gets through to the project's backend, with a password."""
    (backend,) = client.backends(project)
    return backend.is_connected and backend.has_password


def show(page: Page, url: str) -> None:
    """Show a page of that address, which somebody else serves: its own requests go where the name leads."""

    def serve(route: Route) -> None:
        route.fulfill(content_type="text/html", body="<title>A page</title>")

    page.route(url, serve)
    page.goto(url)
