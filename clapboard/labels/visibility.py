"""Which controls Label Studio shows: `visibleWhen` and the `when…` attributes, on controls and on Views around them.

The rules are those of Label Studio 1.23.2's editor (`mixins/Visibility.js`, and `canBeSubmitted` in
`regions/Result.js`): a control is shown if its own condition and that of every View around it hold; a condition that
names a hidden control doesn't hold. Attribute names are matched in any case, their values as they are written.

The names of the classes and fields here are part of `LabelSpace.fingerprint`, so they can't change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element

CHOICE_SELECTED, CHOICE_UNSELECTED = "choice-selected", "choice-unselected"
REGION_SELECTED, NO_REGION_SELECTED = "region-selected", "no-region-selected"
VALUE_SELECTED = ""  # whenChoiceValue without visibleWhen: the value is chosen in any control
_KINDS = frozenset({CHOICE_SELECTED, CHOICE_UNSELECTED, REGION_SELECTED, NO_REGION_SELECTED})

_TAGS_WITH_CONDITION = frozenset({"view", "choices", "taxonomy", "textarea"})
_KINDS_WITH_CHOICES = frozenset({"choices", "taxonomy"})  # of controls that a condition can name

Chosen = Mapping[str, Collection[str]]
"""By a control's name, its chosen values, as results store them; of a taxonomy, paths such as «Animal / Dog»."""


@dataclass(frozen=True)
class Condition:
    """One `visibleWhen`. An empty `tag` means any Choices, empty `values` any choice."""

    kind: str
    tag: str = ""
    values: tuple[str, ...] = ()  # as results store them


@dataclass(frozen=True)
class _Member:
    """A control, and the conditions that must hold for it to be shown."""

    name: str
    kind: str
    conditions: tuple[Condition, ...]

    def picked(self, chosen: Chosen) -> frozenset[str]:
        """The control's chosen values, as a condition names them: of a taxonomy, the last part of each path."""
        values = chosen.get(self.name, ()) if self.kind in _KINDS_WITH_CHOICES else ()
        return frozenset(value.rpartition(" / ")[2] if self.kind == "taxonomy" else value for value in values)


@dataclass(frozen=True)
class Visibility:
    """When each control of a label config is shown."""

    members: tuple[_Member, ...] = ()

    @property
    def is_always(self) -> bool:
        """Whether every control is always shown."""
        return not any(member.conditions for member in self.members)

    def conditions(self, name: str) -> tuple[Condition, ...]:
        """The conditions that must all hold for the control to be shown."""
        return next((member.conditions for member in self.members if member.name == name), ())

    def hidden(self, chosen: Chosen, *, regions: bool = False) -> set[str]:
        """The names of the controls that aren't shown if these values are chosen and no region is selected.

        With `regions`, those that a person can't have seen, whether or not a region was selected at some time.
        """
        always = {member.name for member in self.members if not member.conditions}
        shown = always
        for _ in range(len(self.members) + 1):  # each round settles the controls that depend on the one before
            picked = {member.name: member.picked(chosen) for member in self.members if member.name in shown}
            before = shown
            shown = {
                member.name
                for member in self.members
                if all(self._holds(condition, member.name, picked, regions) for condition in member.conditions)
            }
            if shown == before:
                break
        else:  # some depend on each other in a circle, which makes the editor fail
            shown = always
        return {member.name for member in self.members} - shown

    def reachable(self, suggestible: Mapping[str, Collection[str]]) -> set[str]:
        """The controls, among these with their labels, that suggestions alone can bring into view.

        When a task is opened, the controls that are left to people have nothing chosen, and no region is selected.
        """
        reachable: set[str] = set()
        for _ in suggestible:
            reachable |= {
                name
                for name in suggestible
                if all(_can_hold(condition, name, reachable, suggestible) for condition in self.conditions(name))
            }
        return reachable

    def _holds(self, condition: Condition, name: str, picked: Chosen, regions: bool) -> bool:
        if condition.kind in (REGION_SELECTED, NO_REGION_SELECTED):
            return regions or condition.kind == NO_REGION_SELECTED
        anywhere = [
            member.name
            for member in self.members
            if member.name != name and (member.kind == "choices" or condition.kind == VALUE_SELECTED)
        ]
        chosen_values = [picked.get(tag, ()) for tag in ([condition.tag] if condition.tag else anywhere)]
        is_selected = any(
            set(condition.values) & set(values) if condition.values else values for values in chosen_values
        )
        return is_selected != (condition.kind == CHOICE_UNSELECTED)


def read_visibility(root: Element, names: Iterable[str]) -> Visibility:
    """The visibility of the named controls in a label config whose attribute names are in lower case."""
    parents = {child: parent for parent in root.iter() for child in parent}
    by_name = {element.get("name", ""): element for element in root.iter() if element.get("name")}
    members = []
    for name in names:
        lineage = [by_name[name]]
        while lineage[-1] in parents:
            lineage.append(parents[lineage[-1]])
        read = (_condition(element, by_name) for element in lineage)
        conditions = tuple(condition for condition in read if condition is not None)
        members.append(_Member(name, by_name[name].tag.lower(), conditions))
    return Visibility(tuple(members))


def _condition(element: Element, by_name: Mapping[str, Element]) -> Condition | None:
    """The element's own condition; None if it has none, or one of a kind that the editor ignores."""
    if element.tag.lower() not in _TAGS_WITH_CONDITION:
        return None
    kind, tag, value = (element.get(name) or "" for name in ("visiblewhen", "whentagname", "whenchoicevalue"))
    if not kind:
        return Condition(VALUE_SELECTED, "", (value,)) if value else None
    if kind not in _KINDS:
        return None
    values = tuple(value.split(",")) if value else ()
    if tag in by_name:
        values = tuple(_stored_value(by_name[tag], choice) for choice in values)
    return Condition(kind, tag, values)


def _stored_value(control: Element, value: str) -> str:
    """What results store for the choice with this value or alias."""
    for choice in control.iter():
        if choice.tag.lower() == "choice" and value in (choice.get("alias"), choice.get("value")):
            return choice.get("alias") or choice.get("value") or value
    return value


def _can_hold(
    condition: Condition, name: str, reachable: Collection[str], suggestible: Mapping[str, Collection[str]]
) -> bool:
    """Whether some suggestion for the reachable controls makes a condition of the control `name` hold."""
    if condition.kind in (NO_REGION_SELECTED, CHOICE_UNSELECTED):
        return True  # if another choice is suggested, or none
    if condition.kind == REGION_SELECTED:
        return False
    tags = [condition.tag] if condition.tag else [other for other in reachable if other != name]
    return any(
        tag in reachable and (not condition.values or bool(set(condition.values) & set(suggestible[tag])))
        for tag in tags
    )
