"""`make demo`: a real Label Studio whose clips arrive with CLAP's suggestions, from nothing, in minutes.

On a terminal everything stays up to be looked at; anywhere else the demo checks itself and ends.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from statistics import mean

import httpx
from rich.console import Console
from rich.table import Table

from clapboard.label_studio.client import LabelStudioClient
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import State
from demo.clapboard_up import ClapboardUp
from demo.clips import Clip, make_clips, make_plant_clips
from demo.label_studio_server import LabelStudioServer
from demo.learning import Annotator, LearningProject, Stage, show

STATE = Path(__file__).parent.parent / ".demo"
Suggestion = tuple[str, float]

LEAST_ACCURACY = 0.6  # far above the chance of about 0.06: below it something is broken, not merely imperfect
NUM_PLANT_CLIPS = 300
TEST_SHARE = "0.16"
NUM_LEARNT = 52  # with those set aside, a third; at 32 a class, more would be finetuned than a demo has time for
NUM_AFTERWARDS = 15  # annotated after finetuning, for the acceptance of its suggestions
PRUNE_QUIET_S = "3"  # so small a project is tidied up in no time


def main() -> int:
    """0 if every clip got exactly one suggestion and most of them are right."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped on this way out too
    shutil.rmtree(STATE, ignore_errors=True)
    with console.status("synthesising clips"):
        clips = make_clips(STATE / "clips")
    told = ", ".join(f"{count} {origin}" for origin, count in Counter(clip.origin for clip in clips).items())
    console.print(f"Clips: {told}")
    with console.status("starting Label Studio (the first start prepares its database)"):
        server = LabelStudioServer(STATE / "label-studio").__enter__()
    try:
        console.print(f"Label Studio runs at {server.url}")
        with ExitStack() as stack:
            with console.status("starting backend and worker"):
                settings = {"CLAPBOARD_PRUNE_QUIET_S": PRUNE_QUIET_S}
                clapboard = stack.enter_context(ClapboardUp(server, STATE / "clapboard", settings=settings))
            console.print(f"Clapboard runs at {clapboard.url}")
            failed = _pre_label(console, server, clapboard, clips, began) or _learn(console, server, clapboard)
            console.print(
                f"\n{time.monotonic() - began:.0f} s in all. Look at the projects: {server.url}/projects/\n"
                f"    log in as {server.email}, password {server.password}"
            )
            if sys.stdin.isatty() and sys.stdout.isatty():
                console.input("\nEverything is up. Press Enter to stop.")
            return failed
    finally:
        server.stop()


def _pre_label(
    console: Console, server: LabelStudioServer, clapboard: ClapboardUp, clips: list[Clip], began: float
) -> int:
    client = LabelStudioClient(Settings(LABEL_STUDIO_URL=server.url, LABEL_STUDIO_API_KEY=server.token))
    project = client.create_project("Clapboard demo", label_config(sorted({clip.label for clip in clips})))
    tasks = dict(zip(client.import_files(project.id, [clip.path for clip in clips]), clips, strict=True))
    # Nothing is learnt in this project, so nothing has to be set aside.
    _run(console, clapboard, "connect", project.id, CLAPBOARD_TEST_SHARE="0")
    _run(console, clapboard, "prelabel", project.id)
    suggestions = _suggestions(server, project.id)
    accuracy = _show(console, tasks, suggestions)
    console.print(f"{len(tasks)} tasks pre-labelled, {time.monotonic() - began:.0f} s after `make demo` began.")
    twice_or_never = [task for task, held in suggestions.items() if len(held) != 1]
    if twice_or_never:
        console.print(f"[red]Tasks {twice_or_never} don't have exactly one suggestion.[/]")
    if accuracy < LEAST_ACCURACY:
        console.print(f"[red]The accuracy is below {LEAST_ACCURACY}.[/]")
    return int(bool(twice_or_never) or accuracy < LEAST_ACCURACY)


def _learn(console: Console, server: LabelStudioServer, clapboard: ClapboardUp) -> int:
    """0 if suggestions became better by the head, and finetuning came to its verdict."""
    console.rule("What no name tells")
    with console.status("recording a plant"):
        clips = make_plant_clips(STATE / "plant", NUM_PLANT_CLIPS)
    client = LabelStudioClient(Settings(LABEL_STUDIO_URL=server.url, LABEL_STUDIO_API_KEY=server.token))
    made = client.create_project("Clapboard demo: a plant", label_config(sorted({clip.label for clip in clips})))
    tasks = client.import_files(made.id, [clip.path for clip in clips])
    truth = {task: clip.label for task, clip in zip(tasks, clips, strict=True)}
    _run(console, clapboard, "connect", made.id, CLAPBOARD_TEST_SHARE=TEST_SHARE)
    _run(console, clapboard, "prelabel", made.id)

    with closing(Store.open(clapboard.settings)) as store, LearningProject(server, store, made.id, truth) as project:
        return _annotate_and_train(console, clapboard, project)


def _annotate_and_train(console: Console, clapboard: ClapboardUp, project: LearningProject) -> int:
    stages = [project.stage("texts alone", [])]
    annotator = Annotator(project.api, project.project, project.truth)
    aside = project.without_suggestion()
    num_tasks = len(aside) + NUM_LEARNT
    console.print(f"{len(aside)} tasks are set aside without a suggestion, to judge by; they are annotated first.")
    with console.status("annotating") as status:
        for number, _ in enumerate(annotator.annotate(num_tasks, first=aside), start=1):
            status.update(f"a simulated annotator accepts and corrects: {number} of {num_tasks}")
    project.wait_until_learnt()
    stages.append(project.stage("head, fitted at each annotation", annotator.judged))
    with console.status("Start Training: the audio encoder is finetuned, and judged on the tasks set aside"):
        project.start_training()
        trained = project.trained()
    tuned, num_judged = project.stage("after finetuning", []), len(annotator.judged)
    with console.status(f"the annotator goes on for {NUM_AFTERWARDS} tasks"):
        for _ in annotator.annotate(NUM_AFTERWARDS):
            pass
        project.wait_until_pruned()
    stages.append(replace(tuned, acceptance=mean(annotator.judged[num_judged:])))
    show(console, stages)
    console.print(f"The gate's verdict: {trained.error}", highlight=False, markup=False)
    for command in ("ledger", "models list"):
        _run(console, clapboard, command, project.project)
    return _complain(console, stages, trained.state, project.wrongly_suggested())


def _complain(console: Console, stages: list[Stage], trained: State, wrongly_suggested: list[int]) -> int:
    """0 if every stage happened; else 1, and what is wrong is printed. A gate that refuses has done its work."""
    texts, head, tuned = stages
    wrong = {
        "The head made the suggestions no better.": head.accuracy <= texts.accuracy,
        "The training did not come to its end.": trained != State.DONE,
        "What was promoted made the suggestions worse.": tuned.accuracy < head.accuracy,
        f"Tasks {wrongly_suggested} don't have exactly one suggestion.": bool(wrongly_suggested),
    }
    for complaint, holds in wrong.items():
        if holds:
            console.print(f"[red]{complaint}[/]")
    return int(any(wrong.values()))


def _run(console: Console, clapboard: ClapboardUp, command: str, project: int, **settings: str) -> None:
    console.print(f"[bold]$ clapboard {command} --project {project}[/]")
    done = clapboard.run(*command.split(), "--project", str(project), **settings)
    console.print(done.stdout, end="", markup=False, highlight=False)


def _show(console: Console, tasks: dict[int, Clip], suggestions: dict[int, list[Suggestion]]) -> float:
    """Print the table; the share of tasks whose suggestion is right."""
    table = Table("task", "suggestion", "score", "truth", "source", title="What CLAP suggests")
    num_right = 0
    for task, clip in tasks.items():
        held = suggestions.get(task, [])
        label, score = held[0] if held else ("–", 0.0)
        num_right += label == clip.label
        colour = "green" if label == clip.label else "red"
        table.add_row(str(task), f"[{colour}]{label}[/]", f"{score:.2f}", clip.label, clip.origin)
    console.print(table)
    accuracy = num_right / len(tasks)
    console.print(f"Accuracy: {num_right} of {len(tasks)} = {accuracy:.2f}")
    return accuracy


def _suggestions(server: LabelStudioServer, project: int) -> dict[int, list[Suggestion]]:
    """For each task, the choice and score of every prediction that Label Studio holds."""
    answer = httpx.get(
        f"{server.url}/api/tasks",
        params={"project": project, "page_size": 1000, "fields": "all"},
        headers={"Authorization": f"Token {server.token}"},
        timeout=60,
    )
    answer.raise_for_status()
    return {
        task["id"]: [
            (held["result"][0]["value"]["choices"][0], float(held["score"]))
            for held in task["predictions"]
            if held["result"]
        ]
        for task in answer.json()["tasks"]
    }


def label_config(labels: list[str]) -> str:
    """A single choice of these labels for a clip."""
    choices = "\n".join(f'    <Choice value="{label}"/>' for label in labels)
    return f"""<View>
  <Header value="What do you hear?"/>
  <Audio name="audio" value="$audio"/>
  <Choices name="sound" toName="audio" choice="single-radio" showInline="true">
{choices}
  </Choices>
</View>"""


if __name__ == "__main__":
    sys.exit(main())
