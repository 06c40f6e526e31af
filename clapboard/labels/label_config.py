"""A label config (XML) → its `LabelSpace`: the controls that label the audio, their labels and their prompts.

label-studio-sdk's parser decides what is a control, what is an object and which belong together. Labels are read here,
because that parser keeps neither the nesting of a taxonomy nor duplicates. As in Label Studio's editor, tag and
attribute names are matched in any case, and a result stores a label's alias rather than its value.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeElementTree

from clapboard.errors import ClapboardError, LabelConfigError
from clapboard.labels.captions import ensemble
from clapboard.labels.label_space import Control, Label, LabelSpace
from clapboard.labels.prompts import prompts_for, spoken
from clapboard.labels.region_limits import limits_of, threshold_of, without_regions_to_label
from clapboard.labels.visibility import REGION_SELECTED, Visibility, read_visibility

_AUDIO_TAGS = frozenset({"audio", "audioplus"})
_LABEL_TAGS = {"choices": "choice", "taxonomy": "choice", "labels": "label"}  # by kind of control
_KINDS = frozenset({*_LABEL_TAGS, "textarea", "rating", "number", "datetime", "pairwise"})
_SDK_SPELLING = {"toname": "toName", "valuelist": "valueList", "apiurl": "apiUrl"}
_CAPTIONS = "captions"  # as a control's prompt: use an ensemble of captions instead of templates
_VARIABLE = re.compile(r"\$[A-Za-z0-9_\[\].{}]+")  # the editor replaces it by task data, anywhere in a value
_CHANNEL = re.compile(r"left|right|mix|[1-9][0-9]{0,2}|")
MAX_CHARS = 2_000_000
MAX_LABELS = 20_000
"""Bounds on a label config. Reading takes some 30 µs a label, and each is embedded with every encoder."""

_AUDIO_VALUE = re.compile(r"\$([^\s,$\[\]{}]+)")


def parse_label_config(xml: str) -> LabelSpace:
    """The label space of a project's label config.

    Raises `LabelConfigError` if the config is beyond the bounds, isn't well-formed XML, declares a DTD, doesn't have
    exactly one Audio object, or has a control for it that can't be understood.
    """
    if len(xml) > MAX_CHARS:
        raise LabelConfigError(f"The label config has more than {MAX_CHARS} characters: shorten its labels or prompts.")
    root = _normalised_root(xml)
    _refuse_many_labels(root)
    interface = _interface(root)
    elements = _elements_by_name(root)
    _refuse_dangling(interface, elements)
    audio_name, audio_key, channel = _audio(interface)
    on_audio = [control for control in interface.controls or () if audio_name in control.to_name]
    if not on_audio:
        raise LabelConfigError(
            f"No control labels the Audio “{audio_name}”: add one, such as Choices, with its toName."
        )
    visibility = read_visibility(root, [control.name for control in interface.controls if control.name in elements])
    controls = tuple(_control(control, elements[control.name], audio_name) for control in on_audio)
    controls = _without_unreachable(without_regions_to_label(controls), visibility)
    return LabelSpace(audio_name, audio_key, controls, channel, visibility, _elsewhere(interface, audio_name))


def _normalised_root(xml: str) -> Element:
    """The config as a tree without comments, its attribute names in lower case, or as label-studio-sdk spells them."""
    if not xml.strip():
        raise LabelConfigError("The label config is empty: set up the project's labeling interface first.")
    try:
        root = SafeElementTree.fromstring(xml, forbid_dtd=True)
    except DefusedXmlException:
        raise LabelConfigError("The label config declares a DTD or entities, which are refused: remove them.") from None
    except (ParseError, ValueError) as error:
        raise LabelConfigError(
            f"The label config is not well-formed XML ({error}): correct it in the labeling interface."
        ) from error
    for element in root.iter():
        lowered = {name.lower(): value for name, value in element.attrib.items()}
        element.attrib = {_SDK_SPELLING.get(name, name): value for name, value in lowered.items()}
    return root


def _refuse_many_labels(root: Element) -> None:
    num_labels = sum(element.tag.lower() in _LABEL_TAGS.values() for element in root.iter())
    if num_labels > MAX_LABELS:
        raise LabelConfigError(
            f"The label config has {num_labels} labels, more than {MAX_LABELS}: split it into several projects."
        )


def _interface(root: Element) -> Any:
    """The config as label-studio-sdk parses it, from the tree that was parsed safely."""
    from label_studio_sdk.label_interface import LabelInterface  # takes 0.5 s, with boto3 and jsonschema behind it

    try:
        return LabelInterface(SafeElementTree.tostring(root, encoding="unicode"))
    except Exception as error:  # the parser raises all kinds, among them RecursionError
        reason = type(error).__name__ if isinstance(error, RecursionError) else str(error).partition("\n")[0]
        raise LabelConfigError(
            f"The label config can't be read by label-studio-sdk ({reason}): correct it in the labeling interface."
        ) from error


def _elements_by_name(root: Element) -> dict[str, Element]:
    elements = [element for element in root.iter() if element.get("name")]
    counts = Counter(element.attrib["name"] for element in elements)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise LabelConfigError(f"The label config uses the name “{repeated[0]}” more than once: names must differ.")
    return {element.attrib["name"]: element for element in elements}


def _refuse_dangling(interface: Any, elements: Mapping[str, Element]) -> None:
    for control in interface.controls or ():
        for target in control.to_name:
            if target not in elements:
                raise LabelConfigError(
                    f'{_title(control)} has toName="{target}", but nothing has that name: correct its toName.'
                )


def _audio(interface: Any) -> tuple[str, str, str]:
    """The name, task data key and channel of the only Audio object."""
    audios = [item for item in interface.objects or () if item.tag.lower() in _AUDIO_TAGS]
    if not audios:
        raise LabelConfigError('The label config has no Audio object: add one, like <Audio name="a" value="$audio"/>.')
    if len(audios) > 1:
        names = " and ".join(f"“{audio.name}”" for audio in audios)
        raise LabelConfigError(f"The label config has {len(audios)} Audio objects, {names}: remove all but one.")
    match = _AUDIO_VALUE.fullmatch(audios[0].attr.get("value") or "")
    if match is None:
        raise LabelConfigError(
            f"The Audio “{audios[0].name}” doesn't name one key of the task's data: give it a value like \"$audio\"."
        )
    return audios[0].name, match[1], _channel(audios[0])


def _channel(audio: Any) -> str:
    text = (audio.attr.get("channel") or "").strip().lower()
    if not _CHANNEL.fullmatch(text):
        raise LabelConfigError(
            f'The Audio “{audio.name}” has channel="{text}": write left, right, or a number from 1, or leave it out.'
        )
    return {"1": "left", "2": "right", "mix": ""}.get(text, text)


def _control(control: Any, element: Element, audio_name: str) -> Control:
    kind = control.tag.lower()
    if kind not in _KINDS:
        raise LabelConfigError(f"{_title(control)} is no control that can label audio: remove it or change its toName.")
    labels = _labels(control, element, kind) if kind in _LABEL_TAGS else ()
    per_region = _is_true(control, "perregion") and kind != "labels"
    multiple = control.attr.get("maxusages") != "1" if kind == "taxonomy" else control.attr.get("choice") == "multiple"
    return Control(
        name=control.name,
        kind=kind,
        to_name=audio_name,
        labels=labels,
        multiple=multiple,
        per_region=per_region,
        threshold=threshold_of(_title(control), control.attr),
        why_not_predicted=_why_not_predicted(control, element, kind),
        of_control=element.get("whentagname") or "" if per_region else "",
        of_labels=tuple(filter(None, (element.get("whenlabelvalue") or "").split(","))) if per_region else (),
    )


def _elsewhere(interface: Any, audio_name: str) -> tuple[str, ...]:
    """A sentence for each Labels on something else than the audio."""
    objects = {item.name: item.tag for item in interface.objects or ()}
    return tuple(
        f"{_title(control)} labels the {objects.get(target, 'object')} “{target}”, not the audio: it is left to people."
        for control in interface.controls or ()
        if control.tag.lower() == "labels" and audio_name not in control.to_name
        for target in control.to_name[:1]
    )


def _why_not_predicted(control: Any, element: Element, kind: str) -> str:
    """Why this release makes no suggestions for the control, in one sentence; empty if it does."""
    title = _title(control)
    if kind not in ("choices", "labels"):
        return f"{title} is left to people: this release suggests Choices and Labels only."
    if _is_true(control, "peritem"):
        return f"{title} labels single items (perItem): this release suggests whole clips only."
    if _is_true(control, "allownested"):
        return f"{title} stores nested choices (allowNested): this release suggests flat ones only."
    if any(
        child.get("visiblewhen") or child.get("whenchoicevalue") for child in element.iter() if child is not element
    ):
        return f"{title} shows some of its choices only at times (visibleWhen within it): move that around all of it."
    values = [choice.get("value", "") for choice, _ in _label_elements(element, kind, nested=False)]
    if control.dynamic_value or any(_VARIABLE.search(value) for value in values):
        return f"{title} takes its choices from each task's data, so they aren't known beforehand."
    return ""


def _without_unreachable(controls: tuple[Control, ...], visibility: Visibility) -> tuple[Control, ...]:
    """The controls, of which those that suggestions alone can't bring into view are no longer predicted.

    A perRegion control comes into view with its region.
    """
    suggestible = {
        control.name: [label.value for label in control.labels]
        for control in controls
        if control.predicted and not control.per_region
    }
    reachable = visibility.reachable(suggestible) | {
        control.name
        for control in controls
        if control.per_region
        and all(condition.kind == REGION_SELECTED for condition in visibility.conditions(control.name))
    }
    why = "is hidden (visibleWhen) until people select a region or make a choice that isn't suggested"
    return tuple(
        replace(control, why_not_predicted=f"The {control.kind.capitalize()} “{control.name}” {why}.")
        if control.predicted and control.name not in reachable
        else control
        for control in controls
    )


def _labels(control: Any, element: Element, kind: str) -> tuple[Label, ...]:
    """The control's fixed labels, in the config's order."""
    title = _title(control)
    templates = _split(control.attr.get("prompt"), "|")
    if templates != (_CAPTIONS,) and any("{}" not in template for template in templates):
        raise LabelConfigError(
            f"{title} has a prompt without {{}}, the place of the label's name: add it, or write “captions” alone."
        )
    nested = kind == "taxonomy" or _is_true(control, "allownested")
    labels = [_label(title, child, path, templates) for child, path in _label_elements(element, kind, nested)]
    if kind == "labels":
        elements = [child for child, _ in _label_elements(element, kind, nested)]
        labels = [
            replace(label, limits=limits_of(title, element, child))
            for label, child in zip(labels, elements, strict=True)
        ]
    if not labels and not control.dynamic_value:
        raise LabelConfigError(f"{title} has no labels: add a {_LABEL_TAGS[kind].capitalize()} for each.")
    counts = Counter(label.path for label in labels)
    if repeated := [path for path, count in counts.items() if count > 1]:
        raise LabelConfigError(f"{title} has the label “{' / '.join(repeated[0])}” more than once: each must differ.")
    return tuple(labels)


def _label(title: str, element: Element, path: tuple[str, ...], templates: tuple[str, ...]) -> Label:
    value = path[-1]
    if not value.strip():
        raise LabelConfigError(f"{title} has a label whose value or alias is empty: fill it in or remove it.")
    text = element.get("value", "").strip() or value.strip()
    try:
        return Label(value, path, _prompts(element, text, templates))
    except ClapboardError:  # no captions can be made of a name such as «/»
        raise LabelConfigError(
            f"{title} has the label “{text}”, which has no word to make captions of: give it a prompt."
        ) from None


def _label_elements(
    parent: Element, kind: str, nested: bool, path: tuple[str, ...] = ()
) -> Iterator[tuple[Element, tuple[str, ...]]]:
    """Each label below the element, inside Views too, with its path; labels inside another label only if `nested`."""
    for child in parent:
        if child.tag.lower() != _LABEL_TAGS[kind]:
            yield from _label_elements(child, kind, nested, path)
            continue
        alias, value = child.get("alias"), child.get("value", "")
        # Label Studio stores a Choice under its alias even if that is empty, but a Label then under its value.
        stored = alias if alias or (alias is not None and kind != "labels") else value
        yield child, (*path, stored)
        if nested:
            yield from _label_elements(child, kind, nested, (*path, stored))


def _prompts(element: Element, text: str, templates: tuple[str, ...]) -> tuple[str, ...]:
    """The texts that describe a label to CLAP: its own prompts, or its name and synonyms in templates or captions."""
    if own := _split(element.get("prompt"), "|"):
        return own
    synonyms = _split(element.get("predicted_values"), ",")
    if not templates:
        return prompts_for(text, synonyms)
    if templates == (_CAPTIONS,):
        return ensemble(text, synonyms)
    names = [spoken(name) for name in (text, *synonyms)]
    return tuple(dict.fromkeys(template.replace("{}", name) for template in templates for name in names))


def _split(text: str | None, separator: str) -> tuple[str, ...]:
    parts = (part.strip() for part in (text or "").split(separator))
    return tuple(dict.fromkeys(part for part in parts if part))


def _is_true(control: Any, attribute: str) -> bool:
    return bool(control.attr.get(attribute) == "true")


def _title(control: Any) -> str:
    return f"The {control.tag} “{control.name}”"
