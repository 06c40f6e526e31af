"""The whole slice on real parts: Label Studio, `clapboard up`, the embedded checkpoint, real files."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile

from clapboard.audio.windows import SAMPLE_RATE
from clapboard.label_studio.checks import STORED_TITLE
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.records import Project
from demo.browser import screenshot_task
from demo.label_studio_server import LabelStudioServer
from tests.support.clapboard_up import ClapboardUp
from tests.support.commands import start_on_terminal
from tests.support.processes import Installation, Terminal
from tests.support.programs import free_port, needs_program
from tests.support.shells import README, SHELLS, blocks, needs_shell
from tests.support.waiting import wait_for
from training.sounds.synthesis import synthesise

pytestmark = pytest.mark.e2e

HELD_OUT_SEED = 2_200_000_000  # above every seed that the embedded checkpoint was trained on
KINDS = ("dog bark", "rain", "clock tick", "siren")
CONFIG = """<View>
  <Header value="What do you hear?"/>
  <Audio name="audio" value="$audio" channel="left"/>
  <Choices name="sound" toName="audio" choice="single" showInline="true">
    <Choice value="dog bark"/><Choice value="rooster"/><Choice value="rain"/><Choice value="sea waves"/>
    <Choice value="fire crackling"/><Choice value="baby cry"/><Choice value="person sneeze"/>
    <Choice value="clock tick"/><Choice value="helicopter"/><Choice value="chainsaw"/><Choice value="siren"/>
  </Choices>
</View>"""


@pytest.fixture(scope="module")
def clapboard(label_studio: LabelStudioServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClapboardUp]:
    """Backend and worker on the embedded checkpoint, behind basic auth."""
    # Nothing is set aside: each test counts the suggestions of all tasks, for which a busy machine takes its time.
    settings = {
        "BASIC_AUTH_USER": "studio",
        "BASIC_AUTH_PASS": "e2e-secret",
        "CLAPBOARD_TEST_SHARE": "0",
        "CLAPBOARD_ENGINE": "torch",
        "CLAPBOARD_PREDICT_WAIT_S": "20",
    }
    with ClapboardUp(label_studio, tmp_path_factory.mktemp("clapboard"), settings=settings) as up:
        yield up


@pytest.fixture
def project(
    label_studio_client: LabelStudioClient, clapboard: ClapboardUp, tmp_path: Path
) -> Iterator[tuple[Project, dict[int, str]]]:
    """A connected project with one uploaded clip of each kind, and one file that is no audio; task → kind."""
    made = label_studio_client.create_project("End to end", CONFIG)
    paths = []
    for kind in KINDS:
        paths.append(tmp_path / f"{kind.replace(' ', '-')}.flac")
        soundfile.write(paths[-1], synthesise(kind, HELD_OUT_SEED, 4.0), SAMPLE_RATE)
    broken = tmp_path / "broken.wav"
    broken.write_text("this is text")
    tasks = label_studio_client.import_files(made.id, [*paths, broken])
    report = json.loads(clapboard.run("connect", "--project", str(made.id), "--json").stdout)
    assert report["warnings"] == []
    kept = label_studio_client.project(made.id).label_config  # an attribute of ours, as Label Studio keeps it
    assert 'channel="left"' in kept
    yield made, dict(zip(tasks, [*KINDS, "broken"], strict=True))
    label_studio_client.delete_project(made.id)


def test_prelabel_gives_every_task_one_suggestion_with_its_score(
    clapboard: ClapboardUp, project: tuple[Project, dict[int, str]], label_studio_api: httpx.Client
) -> None:
    made, kinds = project
    done = clapboard.run("prelabel", "--project", str(made.id), "--json", check=False)
    told = json.loads(done.stdout)
    assert done.returncode == 1  # one file is no audio
    assert told["num_in_label_studio"] == len(KINDS)
    ((failure),) = told["failures"]
    assert kinds[failure["task"]] == "broken"
    assert "decoded" in failure["error"]
    held = _predictions(label_studio_api, made.id)
    assert {task: len(found) for task, found in held.items()} == {t: int(k != "broken") for t, k in kinds.items()}
    right = [_choice(held[task][0]) == kind for task, kind in kinds.items() if kind != "broken"]
    assert sum(right) >= 3
    again = json.loads(clapboard.run("prelabel", "--project", str(made.id), "--json", check=False).stdout)
    assert again["num_present"] == len(KINDS)
    assert {t: len(found) for t, found in _predictions(label_studio_api, made.id).items()} == {
        t: int(k != "broken") for t, k in kinds.items()
    }


def test_opening_a_task_and_retrieving_predictions_store_exactly_one_each(
    project: tuple[Project, dict[int, str]], label_studio_api: httpx.Client
) -> None:
    made, kinds = project
    with ThreadPoolExecutor(4) as pool:  # four people open the same task at once
        list(pool.map(lambda task: _open(label_studio_api, made.id, task), [next(iter(kinds))] * 4))
    assert len(_predictions(label_studio_api, made.id)[next(iter(kinds))]) == 1
    for _ in range(2):
        _retrieve_predictions(label_studio_api, made.id)
    held = _predictions(label_studio_api, made.id)
    assert {task: len(found) for task, found in held.items()} == {t: int(k != "broken") for t, k in kinds.items()}
    versions = {found["model_version"] for predictions in held.values() for found in predictions}
    assert versions == {label_studio_api.get(f"/api/projects/{made.id}").json()["model_version"]}


def test_a_browser_shows_the_suggestion_ticked_with_its_version_and_score(
    project: tuple[Project, dict[int, str]],
    label_studio: LabelStudioServer,
    label_studio_api: httpx.Client,
    tmp_path: Path,
) -> None:
    made, kinds = project
    chromium = needs_program("chromium")
    task = next(iter(kinds))
    opened = _open(label_studio_api, made.id, task)
    (suggested,) = opened["predictions"]
    picture = Path(os.environ.get("SCREENSHOT", tmp_path / "suggestion.png"))
    facts = screenshot_task(
        label_studio.url, label_studio.email, label_studio.password, made.id, task, picture, chromium=chromium
    )
    assert facts.ticked == (_choice(suggested),)
    assert facts.shows_version(suggested["model_version"])
    assert not facts.shows_version("another-version")
    assert float(facts.score_shown.rstrip("%")) == pytest.approx(100 * suggested["score"], abs=0.01)
    assert facts.clip_s == pytest.approx(4.0, abs=0.05)


def test_scores_fill_the_data_managers_column_and_order_uncertainty_sampling(
    clapboard: ClapboardUp, project: tuple[Project, dict[int, str]], label_studio_api: httpx.Client
) -> None:
    made, _ = project
    clapboard.run("prelabel", "--project", str(made.id), check=False)
    # All is pushed: from then on Label Studio asks for nothing, and what it shows stands still.
    _until(lambda: label_studio_api.get(f"/api/ml/?project={made.id}").json()[0]["title"] == STORED_TITLE)
    _until(lambda: "." in label_studio_api.get(f"/api/projects/{made.id}").json()["model_version"])
    rows = label_studio_api.get("/api/tasks", params={"project": made.id, "fields": "all"}).json()["tasks"]
    scores = {row["id"]: row["predictions_score"] for row in rows if row["predictions_score"] is not None}
    assert len(scores) == len(KINDS)
    assert all(0.0 < score <= 1.0 for score in scores.values())
    label_studio_api.patch(f"/api/projects/{made.id}", json={"sampling": "Uncertainty sampling"}).raise_for_status()
    order = []
    for _ in KINDS:
        task = label_studio_api.get(f"/api/projects/{made.id}/next").json()
        order.append(task["id"])
        skipped = {"result": [], "was_cancelled": True, "lead_time": 1.0}
        label_studio_api.post(f"/api/tasks/{task['id']}/annotations", json=skipped).raise_for_status()
    assert order == sorted(scores, key=scores.__getitem__)


def test_events_reach_the_inbox_through_the_authorised_webhook(
    clapboard: ClapboardUp, project: tuple[Project, dict[int, str]], label_studio_api: httpx.Client
) -> None:
    made, kinds = project
    before = _events(clapboard)
    annotation = {"result": [], "was_cancelled": True, "lead_time": 2.0}
    label_studio_api.post(f"/api/tasks/{next(iter(kinds))}/annotations", json=annotation).raise_for_status()
    _until(lambda: _events(clapboard).get("ANNOTATION_CREATED", 0) == before.get("ANNOTATION_CREATED", 0) + 1)
    trained = label_studio_api.get(f"/api/ml/?project={made.id}").json()[0]["id"]
    label_studio_api.post(f"/api/ml/{trained}/train", json={}).raise_for_status()
    _until(lambda: _events(clapboard).get("START_TRAINING", 0) == before.get("START_TRAINING", 0) + 1)


def test_tasks_imported_later_get_their_suggestions_by_themselves(
    project: tuple[Project, dict[int, str]],
    label_studio_client: LabelStudioClient,
    label_studio_api: httpx.Client,
    tmp_path: Path,
) -> None:
    made, _ = project
    path = tmp_path / "late.flac"
    soundfile.write(path, synthesise("rain", HELD_OUT_SEED + 1, 5.0), SAMPLE_RATE)
    (task,) = label_studio_client.import_files(made.id, [path])
    _until(lambda: len(_predictions(label_studio_api, made.id)[task]) == 1)


def test_a_changed_label_config_is_answered_by_a_new_aligned_version(
    clapboard: ClapboardUp, project: tuple[Project, dict[int, str]], label_studio_api: httpx.Client
) -> None:
    made, kinds = project
    task = next(iter(kinds))
    old = label_studio_api.get(f"/api/projects/{made.id}").json()["model_version"]
    config = CONFIG.replace('<Choice value="siren"/>', '<Choice value="siren" predicted_values="ambulance"/>')
    label_studio_api.patch(f"/api/projects/{made.id}", json={"label_config": config}).raise_for_status()
    _open(label_studio_api, made.id, task)
    _until(lambda: label_studio_api.get(f"/api/projects/{made.id}").json()["model_version"] != old)
    new = label_studio_api.get(f"/api/projects/{made.id}").json()["model_version"]
    assert new.split(".")[0] == old.split(".")[0]  # the same encoder
    assert clapboard.run("doctor", "--project", str(made.id), check=False).stdout.count("NO ") == 0


def test_doctor_finds_nothing_wrong_with_a_connected_project(
    clapboard: ClapboardUp, project: tuple[Project, dict[int, str]]
) -> None:
    made, _ = project
    checks = json.loads(clapboard.run("doctor", "--project", str(made.id), "--json").stdout)
    assert {"token", "webhook", "model version", "audio", "worker", "broker"} <= {check["name"] for check in checks}
    assert all(check["ok"] for check in checks)


@pytest.mark.parametrize("shell", list(SHELLS))
def test_connecting_works_as_it_is_pasted_from_the_readme(
    shell: str, label_studio: LabelStudioServer, label_studio_client: LabelStudioClient, tmp_path: Path
) -> None:
    needs_shell(shell)
    made = label_studio_client.create_project("Pasted", CONFIG)
    sound = tmp_path / "siren.flac"
    soundfile.write(sound, synthesise("siren", HELD_OUT_SEED, 4.0), SAMPLE_RATE)
    label_studio_client.import_files(made.id, [sound])
    connecting = README.partition("## Connect your Label Studio")[2].partition("4. Anything odd?")[0]
    lines = list(chain.from_iterable(blocks(connecting)))
    assert [line.split()[1] for line in lines[2:]] == ["up", "worker", "connect", "prelabel"]
    command = tmp_path / "bin" / "clapboard"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m clapboard "$@"\n')
    command.chmod(0o755)
    with Installation(tmp_path / "house", "mini", port=free_port(), test_share=0) as house:
        of_the_shell = {"PATH": f"{command.parent}:{os.environ['PATH']}", "PS1": "what now? ", "TERM": "xterm"}
        environment = house.environment | of_the_shell
        terminal = Terminal(partial(start_on_terminal, SHELLS[shell], environment, house.folder))
        try:
            for number, line in enumerate(lines, 1):
                terminal.wait_for("what now?", times=number)
                here = line.replace("http://localhost:8080", label_studio.url)
                terminal.type(here.replace("--project 1", f"--project {made.id}"))
                if line.startswith("read "):
                    terminal.wait_for(line)
                    terminal.type(label_studio.token)
            terminal.wait_for("what now?", times=len(lines) + 1)
            terminal.type("kill %1; wait; exit")
            terminal.wait()
        finally:
            terminal.end()
        assert f"Next: clapboard prelabel --project {made.id}" in terminal.text
        assert re.search(r"1 of 1 tasks? (has|have) a\s+suggestion", terminal.text)
        assert "error:" not in terminal.text
        assert label_studio.token not in terminal.text
        assert (house.folder / ".env").stat().st_mode & 0o077 == 0
    label_studio_client.delete_project(made.id)


def _open(api: httpx.Client, project: int, task: int) -> dict[str, Any]:
    """What the labelling page loads when somebody opens the task."""
    answer = api.get(f"/api/tasks/{task}", params={"project": project})
    answer.raise_for_status()
    return dict(answer.json())


def _retrieve_predictions(api: httpx.Client, project: int) -> None:
    """The Data Manager's «Retrieve Predictions» on all tasks."""
    body = {"selectedItems": {"all": True, "excluded": []}, "project": project}
    action = {"id": "retrieve_tasks_predictions", "project": project}
    api.post("/api/dm/actions", params=action, json=body).raise_for_status()


def _predictions(api: httpx.Client, project: int) -> dict[int, list[dict[str, Any]]]:
    answer = api.get("/api/tasks", params={"project": project, "fields": "all", "page_size": 1000})
    return {task["id"]: task["predictions"] for task in answer.json()["tasks"]}


def _choice(prediction: dict[str, Any]) -> str:
    return str(prediction["result"][0]["value"]["choices"][0])


def _events(clapboard: ClapboardUp) -> dict[str, float]:
    """How many events of each action the backend has counted."""
    auth = (clapboard.environment["BASIC_AUTH_USER"], clapboard.environment["BASIC_AUTH_PASS"])
    text = httpx.get(f"{clapboard.url}/metrics", auth=auth, trust_env=False).text
    lines = [line for line in text.splitlines() if line.startswith("clapboard_webhook_events_total{")]
    return {line.split('"')[1]: float(line.rsplit(" ", 1)[1]) for line in lines}


def _until(holds: Callable[[], bool]) -> None:
    wait_for(holds, "it did not happen")
