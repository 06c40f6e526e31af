"""Labels → prompts: the texts that describe them to the text tower."""

from __future__ import annotations

import re
from collections.abc import Sequence

TEMPLATE = "This is a sound of {}."

# Labels of which any number may hold are scored against the mean of these: σ(scale · (cos label − cos negatives)).
NEGATIVES: tuple[str, ...] = (
    "This is a sound.",
    "This is a recording.",
    "This is a sound of something.",
    "This is a sound of something else.",
    "Some other sound.",
    "An audio clip.",
)


def prompts_for(label: str, synonyms: Sequence[str] = ()) -> tuple[str, ...]:
    """The texts whose mean embedding is the class's weight: the template with the label, then with each synonym."""
    return tuple(TEMPLATE.format(spoken(name)) for name in (label, *synonyms))


def spoken(label: str) -> str:
    """The label as words: `DogBark`, `dog_bark` and `Dog-bark` become «dog bark»; «HVAC» and «3D» stay as they are."""
    spaced = re.sub(
        r"(?<=[a-z])(?=[A-Z])(?!(?<=k)Hz|(?<=d)B\b)|(?<=[0-9])(?=[A-Z][A-Za-z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", label
    )
    parts = re.split(r"[\s_]+|(?<=\w)-(?=\w)|[/|]+", spaced.strip())
    return " ".join(part if part.isupper() and len(part) > 1 else part.lower() for part in parts if part)
