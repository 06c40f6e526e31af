"""Opens a task in Label Studio's labelling page with headless Chromium, and reads what a person would see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Locator, Page, Route, TimeoutError, sync_playwright

from clapboard.label_studio.links import task_url

WIDTH, HEIGHT = 1280, 600
TIMEOUT_MS = 60_000

# Choices are drawn as checkboxes or radio buttons whose name is the choice's value.
_TICKED = "boxes => boxes.filter(box => box.checked).map(box => box.name)"
# Only the lower half counts: the upper one holds the ruler, which is there before the waveform.
_WAVEFORM_IS_DRAWN = """() => {
  const canvas = document.querySelector("#waveform-layer-main");
  if (!canvas || !canvas.width) return false;
  const half = Math.floor(canvas.height / 2);
  const {data} = canvas.getContext("2d").getImageData(0, half, canvas.width, canvas.height - half);
  const shades = new Set();
  for (let i = 0; i < data.length; i += 4) shades.add(data[i] + 256 * data[i + 3]);
  return shades.size > 2;
}"""


@dataclass(frozen=True)
class PageFacts:
    """What the labelling page shows of a task."""

    ticked: tuple[str, ...]  # choices that are ticked in the annotation that a person would submit
    version_shown: str  # on the suggestion's tab; Label Studio puts «...» into the middle of a long one
    score_shown: str  # beside it, such as «91.00%»
    clip_s: float  # length of the audio as the page decoded it

    def shows_version(self, model_version: str) -> bool:
        """Whether the tab shows that model version, in full or shortened."""
        head, _, tail = self.version_shown.partition("...")
        return model_version == self.version_shown or (
            bool(tail) and model_version.startswith(head) and model_version.endswith(tail)
        )


def screenshot_task(
    url: str, email: str, password: str, project: int, task: int, out: Path, *, chromium: Path
) -> PageFacts:
    """What the labelling page of the task shows; a screenshot is written to `out` even if something is missing.

    Raises playwright's `TimeoutError` if the waveform or the suggestion does not appear.
    """
    with logged_in(url, email, password, chromium=chromium) as page:
        page.goto(task_url(url, project, task), wait_until="domcontentloaded")
        try:
            return _facts(page)
        finally:
            out.parent.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=out)


@contextmanager
def logged_in(url: str, email: str, password: str, *, chromium: Path) -> Iterator[Page]:
    """A page of a headless browser, logged in to Label Studio."""
    with sync_playwright() as playwright:
        # Chromium's sandbox does not work as root, as in containers; the pages are our own.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.set_default_timeout(TIMEOUT_MS)
            page.route("**/*", lambda route: _only_from(url, route))
            _log_in(page, url, email, password)
            yield page
        finally:
            browser.close()


def ticked(page: Page) -> tuple[str, ...]:
    """The choices that are ticked in the annotation that a person would submit, once they are drawn."""
    page.locator(".lsf-choice input").first.wait_for()
    return tuple(page.locator(".lsf-choice input").evaluate_all(_TICKED))


def _log_in(page: Page, url: str, email: str, password: str) -> None:
    page.goto(f"{url}/user/login/", wait_until="domcontentloaded")
    page.fill("input[name=email]", email)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda address: "/user/login" not in address, wait_until="commit")


def wait_for_waveform(page: Page) -> None:
    """Wait until the waveform is drawn, before which Label Studio builds the page a second time."""
    page.wait_for_function(_WAVEFORM_IS_DRAWN)


def wait_for_suggestion(page: Page) -> Locator:
    """The element with the suggestion's score, once the page shows waveform, score and choices.

    The waveform is waited for first, because Label Studio builds the page a second time before it draws it.
    """
    page.wait_for_function(_WAVEFORM_IS_DRAWN)
    score = page.locator("[title^='Prediction score']").first
    try:
        score.wait_for(timeout=TIMEOUT_MS / 2)
    except TimeoutError:  # seen once, on a loaded machine: the page came up without its tabs
        page.reload(wait_until="domcontentloaded")
        page.wait_for_function(_WAVEFORM_IS_DRAWN)
        score.wait_for()
    page.locator(".lsf-choice input").first.wait_for()
    return score


def _facts(page: Page) -> PageFacts:
    score = wait_for_suggestion(page)
    tab = page.locator(".lsf-annotation-button", has=score)
    return PageFacts(
        ticked=ticked(page),
        version_shown=tab.locator(".lsf-annotation-button__name").inner_text(),
        score_shown=score.inner_text().strip(" ·\u00a0"),
        clip_s=_seconds(page.locator("[data-testid=timebox-end-time] input").input_value()),
    )


def _seconds(clock: str) -> float:
    """Seconds of a clock such as 00:00:05:003."""
    hours, minutes, seconds, milliseconds = map(int, clock.split(":"))
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def _only_from(url: str, route: Route) -> None:
    """Abort requests to anything but Label Studio, whose pages also fetch things from the internet."""
    url_parts = urlsplit(route.request.url)
    if url_parts.scheme in ("data", "blob") or url_parts.netloc == urlsplit(url).netloc:
        route.continue_()
    else:
        route.abort()
