"""What the documentation says is held to the code: commands, links, tables, figures, diagrams, marks."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from mkdocs.exceptions import PluginError
from typer.main import get_command

from backend.app import create_app
from backend.metrics import Metrics
from clapboard.cli import app
from clapboard.label_studio.tally import RequestTally
from clapboard.labels.label_config import parse_label_config
from clapboard.search.search_request import SearchRequest
from clapboard.settings import Settings, env_name
from clapboard.store import Store
from docs import hooks, tables
from tests.docs.pages import BLOCKS, PAGES, REPOSITORY, SHELL, commands
from workers.worker_metrics import WorkerMetrics

FILE_ENDINGS = ("db", "dump", "log", "py", "internal")
EVERYTHING = "\n".join(PAGES.values())


@pytest.mark.parametrize("typed", sorted(set(chain.from_iterable(map(commands, PAGES.values())))))
def test_commands_shown_have_such_options_and_arguments(typed: str) -> None:
    _, *words = shlex.split(typed.removesuffix(" > clapboard.log 2>&1 &"), comments=True)
    command: Any = get_command(app)
    while words and hasattr(command, "commands"):
        if words == ["COMMAND", "--help"]:
            return
        assert words[0] in command.commands, typed
        command = command.commands[words.pop(0)]
    context = command.context_class(command, info_name=typed)
    command.make_parser(context).parse_args(words)  # raises for an option that isn't there


def test_an_option_that_is_not_there_would_be_found() -> None:
    with pytest.raises(Exception, match="No such option: --nonsense"):
        test_commands_shown_have_such_options_and_arguments("clapboard search --nonsense")


def test_every_command_is_shown() -> None:
    for path, _ in tables.leaves(get_command(app), ("clapboard",)):
        assert " ".join(path) in EVERYTHING, path


@pytest.mark.parametrize("page", PAGES)
def test_each_page_begins_with_what_its_reader_wants(page: str) -> None:
    if page not in ("README.md", "docs/index.md"):
        title, _, first = PAGES[page].partition("\n\n")
        assert title.startswith("# ")
        assert re.match(r"\*\*[^*]*\b[Yy]ou\b[^*]*\*\*", first) or page == "docs/develop/glossary.md", first[:80]


@pytest.mark.parametrize("block", SHELL, ids=lambda block: f"{block.page}: {block.lines[0]}")
def test_what_isnt_run_here_says_why_or_where_it_is(block: Any) -> None:
    if block.mark == "not run":
        assert re.search(r"\b(needs|fetches|installs|install)\b", block.reason), block.reason
    elif block.mark == "tested by":
        tested = (REPOSITORY / block.reason).read_text("utf-8")
        for typed in commands(f"```sh\n{block.code}```"):
            words = [word for word in shlex.split(typed)[1:3] if re.fullmatch(r"[a-z]+(-[a-z]+)*", word)]
            for word in words or ["clapboard"]:
                assert re.search(rf"""["'\s]{word}["'\s`]""", tested), f"{block.reason} doesn't run {typed}"


@pytest.mark.parametrize("page", PAGES)
def test_linked_files_exist(page: str) -> None:
    hooks.with_links(PAGES[page], page)


def test_a_link_to_a_file_that_is_not_there_would_be_found() -> None:
    with pytest.raises(PluginError, match=r"links to nowhere\.py, which doesn't exist"):
        hooks.with_links("[x](nowhere.py)", "README.md")


def test_links_are_written_as_the_site_has_them() -> None:
    source = "[the store](../../clapboard/store) [`errors`](../../clapboard/errors.py)"
    assert hooks.with_links(source, "docs/develop/a.md") == "the store (`clapboard/store`) `clapboard/errors.py`"
    page = "[a](../limits.md#audio) [c](../../CHANGELOG.md)"
    assert hooks.with_links(page, "docs/develop/a.md") == "[a](../limits.md#audio) [c](../changelog.md)"
    fenced = "```sh\n[x](nowhere)\n```"
    assert hooks.with_links(fenced, "README.md") == fenced


def test_modules_named_exist() -> None:
    """The changelog, which names what was, is no page of these."""
    for name in set(re.findall(r"(?<![-/@\w])(?:clapboard|workers|training|backend)(?:\.[a-z_0-9]+)+\b", EVERYTHING)):
        module, _, attribute = name.rpartition(".")
        if attribute not in FILE_ENDINGS:
            assert find_spec(name) or hasattr(import_module(module), attribute), name


def test_modules_that_the_changelog_names_as_new_exist() -> None:
    rows = re.findall(
        r"^ *\| `clapboard[^|]*\|([^|]*)\|$", (REPOSITORY / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    names = [name for row in rows for name in re.findall(r"`(clapboard[.\w]+)`", row)]
    assert len(names) > 10
    assert [name for name in names if not find_spec(name)] == []


def test_programs_and_make_targets_named_exist() -> None:
    for module in set(re.findall(r"python -m ([a-z_.]+)", EVERYTHING)):
        assert find_spec(module), module
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text("utf-8"), re.MULTILINE)
    typed = [line for block in SHELL for line in block.lines] + re.findall(r"`(make [a-z-]+)`", EVERYTHING)
    shown = {line.removeprefix("make ") for line in typed if line.startswith("make ")}
    assert {"demo", "test", "docs"} <= shown <= set(targets)


@pytest.mark.parametrize("name", tables.TABLES)
def test_every_generated_table_is_on_a_page(name: str) -> None:
    assert f"<!-- generated: {name} -->" in EVERYTHING


def test_every_marker_names_a_table() -> None:
    assert set(re.findall(r"^<!-- generated: ([\w-]+) -->$", EVERYTHING, re.MULTILINE)) == set(tables.TABLES)


def test_every_setting_is_in_its_table_with_its_default() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*?) \|$", tables.settings(), re.MULTILINE)
    assert [name for name, _, _ in rows] == [env_name(field) for field in Settings.model_fields]
    assert all(description for _, _, description in rows)
    defaults = {name: value.strip("`") for name, value, _ in rows}
    assert (defaults["PORT"], defaults["CLAPBOARD_TEST_SHARE"], defaults["BASIC_AUTH_PASS"]) == ("9090", "0.1", "empty")
    assert (defaults["CLAPBOARD_FUSION"], defaults["CLAPBOARD_SYNC_S"]) == ("false", "600")


def test_every_metric_is_in_its_table(tmp_path: Path) -> None:
    store = Store.open(Settings(MODEL_DIR=tmp_path))
    of_worker = WorkerMetrics(RequestTally(), torch.device("cpu"), dict).registry
    for table, registry in ((tables.backend_metrics(), Metrics(store).registry), (tables.worker_metrics(), of_worker)):
        named = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
        assert named == {family.name + "_total" * (family.type == "counter") for family in registry.collect()}, (
            "the names that are queried"
        )
    store.close()
    assert "| `clapboard_failed_jobs` | gauge | `reason` |" in tables.backend_metrics()


def test_every_kind_of_job_is_described() -> None:
    sources = "\n".join(
        path.read_text("utf-8")
        for role in ("backend", "clapboard", "workers")
        for path in (REPOSITORY / role).rglob("*.py")
    )
    kinds = set(re.findall(r'JobRequest\(\s*"(\w+)"|add_for_project\(\w+, "(\w+)"', sources))
    asked = {kind for pair in kinds for kind in pair if kind}
    table = PAGES["docs/develop/states.md"].partition("### Kinds of jobs")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == asked


def test_every_route_is_in_its_table(tmp_path: Path) -> None:
    table = tables.routes()
    for path in create_app(Settings(MODEL_DIR=tmp_path)).openapi()["paths"]:
        assert f" {path}`" in table


def test_every_extra_is_described() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    section = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    described = PAGES["docs/operate/install.md"].partition("| extra | for |")[2].partition("\n\n")[0]
    for extra in re.findall(r"^([a-z-]+) = \[", section, re.MULTILINE):
        assert f"`{extra}`" in described or extra == "all", extra


def test_figures_of_the_readme_are_those_that_were_measured() -> None:
    readme = PAGES["README.md"].partition("## Measured")[2].partition("\n## ")[0]
    rows = re.findall(r"^\|.*\d.*\|$", readme, re.MULTILINE)
    measured = PAGES["docs/measured.md"].splitlines()
    assert rows
    assert [row for row in rows if row not in measured] == []


def test_a_diagram_that_cant_be_drawn_stops_the_build() -> None:
    with pytest.raises(PluginError, match=r"(?s)diagram of a page can't be drawn.*Parse error on line 2"):
        hooks.draw("flowchart LR\n A --> --> B {", "a page")


def test_what_a_page_would_fetch_is_found() -> None:
    html = """<link rel="stylesheet" href="https://fonts.example/a.css"><script src=//cdn.example/b.js></script>
    <a href="https://label.example">a link</a><img src="suggestion.png"><link rel="canonical" href="https://us.example/">"""
    assert hooks.fetched_by(html) == ["https://fonts.example/a.css", "//cdn.example/b.js"]


def test_label_configs_shown_can_be_read() -> None:
    for block in BLOCKS:
        if block.language == "xml":
            assert parse_label_config(block.code).predicted


def test_the_search_shown_is_one() -> None:
    (block,) = (b for b in BLOCKS if b.page == "docs/train/search.md" and b.language == "json")
    assert SearchRequest.model_validate_json(block.code).top == 20
