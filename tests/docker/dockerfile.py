"""Reads a Dockerfile into stages: as much of its syntax as the tests need."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """One `FROM`: its name, the image or stage that it builds on, and its instructions in order."""

    name: str
    parent: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def of(self, keyword: str) -> list[str]:
        """The arguments of all instructions with that keyword."""
        return [argument for instruction, argument in self.instructions if instruction == keyword]


def read_stages(path: Path) -> dict[str, Stage]:
    """The stages by name."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    stages: dict[str, Stage] = {}
    for line in filter(str.strip, text.splitlines()):
        keyword, _, argument = line.strip().partition(" ")
        argument = " ".join(argument.split())
        if keyword == "FROM":
            parent, _, name = argument.partition(" AS ")
            stages[name] = stage = Stage(name, parent)
        else:
            stage.instructions.append((keyword, argument))
    return stages


def lineage(stages: dict[str, Stage], name: str) -> list[Stage]:
    """The stage after those that it builds on, the first one first."""
    stage = stages[name]
    return [*(lineage(stages, stage.parent) if stage.parent in stages else []), stage]


def environment(stages: dict[str, Stage], name: str) -> dict[str, str]:
    """What `ENV` sets in the stage's image."""
    pairs = [pair for stage in lineage(stages, name) for argument in stage.of("ENV") for pair in shlex.split(argument)]
    return dict(pair.split("=", 1) for pair in pairs)


def last(stages: dict[str, Stage], name: str, keyword: str) -> str:
    """The argument of the last such instruction in the stage's lineage: the one in force."""
    return [argument for stage in lineage(stages, name) for argument in stage.of(keyword)][-1]


def command(argument: str) -> list[str]:
    """The words of a command in JSON notation, without the health check options before it."""
    return [str(word) for word in json.loads(argument[argument.index("[") :])]


def pinned(image: str) -> bool:
    """Whether the image's tag is a full version."""
    return re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z0-9.-]+)?$", image) is not None
