"""Numbers with what they count, as people write them: «1 label», «2 labels», «1 class», «3 classes»."""

from __future__ import annotations

_SIBILANTS = ("s", "x", "z", "ch", "sh")


def plural(number: int, noun: str, several: str = "") -> str:
    """The singular `noun` in the form that fits the number; `several` is the plural, if it is irregular."""
    if number == 1:
        return noun
    if several:
        return several
    if noun.endswith(_SIBILANTS):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def counted(number: int, noun: str) -> str:
    """The number and the noun, such as «1,200 tasks»."""
    return f"{number:,} {plural(number, noun)}"
