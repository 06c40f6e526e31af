"""What MkDocs does besides: tables made from the code, links to source files, Mermaid from its package, root pages.

A page shows a generated table where it has a line such as `<!-- generated: settings -->`. A link to a file of the
repository, such as `../clapboard/errors.py`, works where the Markdown is read in a checkout; the site shows its path.
"""

from __future__ import annotations

import itertools
import posixpath
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import mermaidx
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from docs import tables  # noqa: E402 - mkdocs loads this file by its path

ROOT_PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Pages that lie in the repository's root, and where the site has them."""

_MARKER = re.compile(r"^<!-- generated: ([a-z-]+) -->$", re.MULTILINE)
_FETCHED = re.compile(r"(<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=\"?((?:https?:)?//[^\"\s>]+)[^>]*>)")
_MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
_FENCED = re.compile(r"(^ *```.*?^ *```)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the root's pages to the site."""
    for name, uri in ROOT_PAGES.items():
        files.append(File.generated(config, uri, content=(REPOSITORY / name).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its generated tables, and with links that hold in the site."""
    for diagram in _MERMAID.findall(markdown):
        draw(diagram, page.file.src_uri)
    source = next((root for root, uri in ROOT_PAGES.items() if uri == page.file.src_uri), f"docs/{page.file.src_uri}")
    return with_links(_MARKER.sub(lambda marker: generated(marker[1]), markdown), source)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page, with Mermaid's script where it has a diagram: Material takes that instead of one from a CDN."""
    if 'class="mermaid"' not in html:
        return html
    script = posixpath.relpath("assets/mermaid.js", posixpath.dirname(page.file.dest_uri) or ".")
    return f'{html}\n<script src="{script}"></script>'


def on_post_build(config: MkDocsConfig) -> None:
    """Copy Mermaid from the package that ships it. Raises `PluginError` if a page would fetch something by network."""
    script = Path(mermaidx.__file__).parent / "assets" / "mermaid.js"
    shutil.copyfile(script, Path(config.site_dir) / "assets" / "mermaid.js")
    for page in Path(config.site_dir).rglob("*.html"):
        if fetched := fetched_by(page.read_text("utf-8")):
            raise PluginError(f"{page.name} needs a network: it fetches {', '.join(fetched)}.")


def fetched_by(html: str) -> list[str]:
    """The addresses on other hosts that a browser fetches to show the page; links to click aren't among them."""
    return [address for tag, address in _FETCHED.findall(html) if 'rel="canonical"' not in tag]


def draw(diagram: str, where: str) -> str:
    """The Mermaid diagram as SVG, by the same Mermaid that pages use. Raises `PluginError` if it can't be drawn."""
    try:
        return str(mermaidx.render(diagram).svg())
    except RuntimeError as error:
        raise PluginError(f"A diagram of {where} can't be drawn. {error}") from error


def generated(name: str) -> str:
    """The table of that name, as Markdown. Raises `PluginError`."""
    table: Callable[[], str] | None = tables.TABLES.get(name)
    if table is None:
        raise PluginError(f"No table is called {name}: docs/tables.py has {', '.join(tables.TABLES)}.")
    return table()


def with_links(markdown: str, source: str) -> str:
    """The Markdown of the repository's file `source`, in which links to files that the site lacks are their paths.

    Raises `PluginError` where such a file doesn't exist.
    """
    return "".join(
        part if is_code else _LINK.sub(lambda link: _resolved(link[1], link[2], source), part)
        for part, is_code in zip(_FENCED.split(markdown), itertools.cycle((False, True)), strict=False)
    )


def _resolved(text: str, target: str, source: str) -> str:
    """The link as the site has it."""
    if re.match(r"[a-z]+:|#", target):
        return f"[{text}]({target})"
    path, hash_sign, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if path in ROOT_PAGES:
        path = f"docs/{ROOT_PAGES[path]}"
    elif not (REPOSITORY / path).exists():
        raise PluginError(f"{source} links to {target}, which doesn't exist.")
    if path == "README.md":
        path = "docs/index.md"
    if path.startswith("docs/"):
        site = f"docs/{ROOT_PAGES.get(source, source.removeprefix('docs/'))}"
        return f"[{text}]({posixpath.relpath(path, posixpath.dirname(site))}{hash_sign}{anchor})"
    shown = text.strip("`").rstrip("/")
    return f"`{path}`" if shown in path else f"{text} (`{path}`)"
