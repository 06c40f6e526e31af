"""`/docs` in a real browser that reaches nothing but the backend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.backend.conftest import PASSWORD
from tests.support.processes import Backend
from tests.support.programs import needs_program

TIMEOUT_MS = 30_000
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for which only the loopback address exists."""
    chromium = needs_program("chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", NO_NETWORK])
        yield opened
        opened.close()


def test_the_api_is_described_without_any_network(backend_before_workers: Backend, browser: Browser) -> None:
    page = browser.new_page(http_credentials={"username": "ls", "password": PASSWORD})
    page.set_default_timeout(TIMEOUT_MS)
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    base = str(backend_before_workers.client.base_url)
    page.goto(f"{base}/docs")
    for route in ("/predict", "/webhook", "/search"):
        page.get_by_text(route, exact=True).first.wait_for()
    page.close()
    assert [url for url in asked if not url.startswith((base, "data:", "blob:"))] == []
    assert errors == []
    assert (
        backend_before_workers.client.get("/redoc").status_code == 404
    )  # FastAPI's other page, whose logo lies on a CDN


def test_an_operation_can_be_tried_out(backend_before_workers: Backend, browser: Browser) -> None:
    page = browser.new_page(http_credentials={"username": "ls", "password": PASSWORD})
    page.set_default_timeout(TIMEOUT_MS)
    page.goto(f"{backend_before_workers.client.base_url}/docs")
    page.locator("#operations-default-health_health_get .opblock-summary-control").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    page.locator(".live-responses-table .response-col_status", has_text="200").wait_for()
    page.close()


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/static-offline-docs/swagger-ui-bundle.js"])
def test_docs_needs_credentials(backend_before_workers: Backend, path: str) -> None:
    assert backend_before_workers.client.get(path).status_code == 200
    assert backend_before_workers.client.get(path, auth=("ls", "wrong")).status_code == 401
