"""Label config → `LabelSpace`: which controls label the audio, with which labels, and what CLAP reads for each.

label-studio-sdk's parser says what is a control, what is an object and which belong together. The labels are read here,
because that parser keeps neither a taxonomy's nesting nor duplicates. Names of tags and attributes count in any case,
as they do in Label Studio's editor, whose source also decides what a result stores: the alias before the value.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeElementTree
from label_studio_sdk.label_interface import LabelInterface

from clapboard.captions import ensemble
from clapboard.errors import ClapboardError, LabelConfigError, SourceError
from clapboard.prompts import prompts_for, spoken

_AUDIO_TAGS = frozenset({"audio", "audioplus"})
_LABEL_TAGS = {"choices": "choice", "taxonomy": "choice", "labels": "label"}  # by kind of control
_KINDS = frozenset({*_LABEL_TAGS, "textarea", "rating", "number", "datetime", "pairwise"})
_SDK_SPELLING = {"toname": "toName", "valuelist": "valueList", "apiurl": "apiUrl"}
_CAPTIONS = "captions"  # a control's prompt that asks for an ensemble of captions in the place of templates
_VARIABLE = re.compile(r"\$[A-Za-z0-9_\[\].{}]+")  # what the editor replaces by task data, anywhere in a value
_AUDIO_VALUE = re.compile(r"\$([^\s,$\[\]{}]+)")


@dataclass(frozen=True)
class Label:
    """One label: what Label Studio stores for it, and the texts that describe it to CLAP."""

    value: str
    path: tuple[str, ...]  # from the root of a taxonomy; `(value,)` elsewhere
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class Control:
    """A control that labels the audio. `kind` is the `type` of its results, `threshold` its model_score_threshold."""

    name: str
    kind: str
    to_name: str
    labels: tuple[Label, ...]
    multiple: bool
    per_region: bool
    threshold: float | None
    why_not_predicted: str = ""  # one sentence; empty where the control is predicted

    @property
    def predicted(self) -> bool:
        """Whether this release suggests something for the control: whole-clip Choices with labels known beforehand."""
        return not self.why_not_predicted


@dataclass(frozen=True)
class LabelSpace:
    """What a project asks about its audio: the Audio object's name, its key in a task's data, and its controls."""

    audio_name: str
    audio_key: str
    controls: tuple[Control, ...]

    @property
    def predicted(self) -> tuple[Control, ...]:
        """The controls that this release makes suggestions for."""
        return tuple(control for control in self.controls if control.predicted)

    @property
    def fingerprint(self) -> str:
        """8 hex digits that change with anything that changes a prediction, and with nothing else."""
        controls = [
            [c.name, c.kind, c.multiple, c.threshold, [[label.path, label.prompts] for label in c.labels]]
            for c in self.predicted
        ]
        text = json.dumps([self.audio_name, self.audio_key, controls])
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def audio_uri(self, task_data: Mapping[str, Any]) -> str:
        """Where the task's audio lies. Raises `SourceError` if the task doesn't say."""
        value: Any = task_data.get(self.audio_key)
        if value is None:  # «$clip.url» names a key within a key
            value = task_data
            for key in self.audio_key.split("."):
                value = value.get(key) if isinstance(value, Mapping) else None
        if value is None:
            raise SourceError(
                f"The task has no “{self.audio_key}” in its data: import it with the audio's address there."
            )
        if not isinstance(value, str) or not value.strip():
            found = "empty" if isinstance(value, str) else f"a {type(value).__name__}"
            raise SourceError(f"The task's “{self.audio_key}” is {found}: it must be the address of one audio file.")
        return value.strip()


def parse_label_config(xml: str) -> LabelSpace:
    """The label space of a project's label config.

    Raises `LabelConfigError` if the config is no XML or holds a DTD, doesn't have exactly one Audio object, or has
    a control on it that can't be understood.
    """
    root = _normalised_root(xml)
    interface = _interface(root)
    elements = _elements_by_name(root)
    _refuse_dangling(interface, elements)
    audio_name, audio_key = _audio(interface)
    on_audio = [control for control in interface.controls or () if audio_name in control.to_name]
    if not on_audio:
        raise LabelConfigError(
            f"No control labels the Audio “{audio_name}”: add one, such as Choices, with its toName."
        )
    return LabelSpace(audio_name, audio_key, tuple(_control(c, elements[c.name], audio_name) for c in on_audio))


def label_space_of(names: Sequence[str], prompts_of: Callable[[str], tuple[str, ...]] = prompts_for) -> LabelSpace:
    """The label space of one Choices with these labels, for where there is no Label Studio.

    Raises `LabelConfigError` if a label is empty or named twice, and what `prompts_of` raises.
    """
    stripped = [name.strip() for name in names]
    labels = tuple(Label(name, (name,), prompts_of(name)) for name in stripped)
    if not labels or any(not label.value for label in labels):
        raise LabelConfigError("A label is empty: name each, such as --labels “dog bark,rain”.")
    if len({label.value for label in labels}) < len(labels):
        raise LabelConfigError("A label is named twice: name each once.")
    control = Control("label", "choices", "audio", labels, False, False, None, "")
    return LabelSpace("audio", "audio", (control,))


def _normalised_root(xml: str) -> Element:
    """The config as a tree without comments, with attribute names in the one case that is read below."""
    if not xml.strip():
        raise LabelConfigError("The label config is empty: set up the project's labeling interface first.")
    try:
        root = SafeElementTree.fromstring(xml, forbid_dtd=True)
    except DefusedXmlException:
        raise LabelConfigError("The label config declares a DTD or entities, which are refused: remove them.") from None
    except (ParseError, ValueError) as error:
        raise LabelConfigError(f"The label config is not well-formed XML: {error}.") from error
    for element in root.iter():
        lowered = {name.lower(): value for name, value in element.attrib.items()}
        element.attrib = {_SDK_SPELLING.get(name, name): value for name, value in lowered.items()}
    return root


def _interface(root: Element) -> Any:
    """label-studio-sdk's view of the config, made from the harmless tree alone."""
    try:
        return LabelInterface(SafeElementTree.tostring(root, encoding="unicode"))
    except Exception as error:  # the parser raises what it stumbles over, a RecursionError for one
        reason = type(error).__name__ if isinstance(error, RecursionError) else str(error).partition("\n")[0]
        raise LabelConfigError(f"The label config can't be read by label-studio-sdk: {reason}.") from error


def _elements_by_name(root: Element) -> dict[str, Element]:
    named = [element for element in root.iter() if element.get("name")]
    counts = Counter(element.attrib["name"] for element in named)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise LabelConfigError(f"The label config uses the name “{repeated[0]}” more than once: names must differ.")
    return {element.attrib["name"]: element for element in named}


def _refuse_dangling(interface: Any, elements: Mapping[str, Element]) -> None:
    for control in interface.controls or ():
        for target in control.to_name:
            if target not in elements:
                raise LabelConfigError(
                    f'{_title(control)} has toName="{target}", but nothing has that name: correct its toName.'
                )


def _audio(interface: Any) -> tuple[str, str]:
    """Name and task data key of the one Audio object."""
    audios = [item for item in interface.objects or () if item.tag.lower() in _AUDIO_TAGS]
    if not audios:
        raise LabelConfigError(
            'The label config has no Audio object: it needs one, like <Audio name="a" value="$audio"/>.'
        )
    if len(audios) > 1:
        names = " and ".join(f"“{audio.name}”" for audio in audios)
        raise LabelConfigError(f"The label config has {len(audios)} Audio objects, {names}: only one can be labelled.")
    match = _AUDIO_VALUE.fullmatch(audios[0].attr.get("value") or "")
    if match is None:
        raise LabelConfigError(
            f"The Audio “{audios[0].name}” doesn't name one key of the task's data: give it a value like \"$audio\"."
        )
    return audios[0].name, match[1]


def _control(control: Any, element: Element, audio_name: str) -> Control:
    kind = control.tag.lower()
    if kind not in _KINDS:
        raise LabelConfigError(f"{_title(control)} is no control that can label audio: remove it or change its toName.")
    labels = _labels(control, element, kind) if kind in _LABEL_TAGS else ()
    multiple = control.attr.get("maxusages") != "1" if kind == "taxonomy" else control.attr.get("choice") == "multiple"
    return Control(
        name=control.name,
        kind=kind,
        to_name=audio_name,
        labels=labels,
        multiple=multiple,
        per_region=_is_true(control, "perregion"),
        threshold=_threshold(control),
        why_not_predicted=_why_not_predicted(control, element, kind),
    )


def _why_not_predicted(control: Any, element: Element, kind: str) -> str:
    title = _title(control)
    if kind != "choices":
        return f"{title} is left to people: this release suggests Choices only."
    if _is_true(control, "perregion"):
        return f"{title} labels single regions (perRegion): this release suggests whole clips only."
    if _is_true(control, "peritem"):
        return f"{title} labels single items (perItem): this release suggests whole clips only."
    if _is_true(control, "allownested"):
        return f"{title} stores nested choices (allowNested): this release suggests flat ones only."
    values = [choice.get("value", "") for choice, _ in _label_elements(element, kind, nested=False)]
    if control.dynamic_value or any(_VARIABLE.search(value) for value in values):
        return f"{title} takes its choices from each task's data, so that they aren't known beforehand."
    return ""


def _labels(control: Any, element: Element, kind: str) -> tuple[Label, ...]:
    """The control's static labels, in the config's order."""
    title = _title(control)
    templates = _split(control.attr.get("prompt"), "|")
    if templates != (_CAPTIONS,) and any("{}" not in template for template in templates):
        raise LabelConfigError(
            f"{title} has a prompt without {{}}, the place of the label's name: add it, or write “captions” alone."
        )
    nested = kind == "taxonomy" or _is_true(control, "allownested")
    found = list(_label_elements(element, kind, nested))
    if not found and not control.dynamic_value:
        raise LabelConfigError(f"{title} has no labels: add a {_LABEL_TAGS[kind].capitalize()} for each.")
    labels = []
    for child, path in found:
        if not path[-1].strip():
            raise LabelConfigError(f"{title} has a label whose value or alias is empty: fill it in or remove it.")
        text = child.get("value", "").strip() or path[-1].strip()
        try:
            labels.append(Label(path[-1], path, _prompts(child, text, templates)))
        except ClapboardError:  # of a name such as «/»
            raise LabelConfigError(
                f"{title} has the label “{text}” without a word for captions: give it a prompt."
            ) from None
    counts = Counter(label.path for label in labels)
    if repeated := [path for path, count in counts.items() if count > 1]:
        raise LabelConfigError(f"{title} has the label “{' / '.join(repeated[0])}” more than once: each must differ.")
    return tuple(labels)


def _label_elements(
    parent: Element, kind: str, nested: bool, path: tuple[str, ...] = ()
) -> Iterator[tuple[Element, tuple[str, ...]]]:
    """Each label below the element with its path, also those in a View, but within another label only if `nested`."""
    for child in parent:
        if child.tag.lower() != _LABEL_TAGS[kind]:
            yield from _label_elements(child, kind, nested, path)
            continue
        alias, value = child.get("alias"), child.get("value", "")
        # Label Studio stores a Choice under its alias even where that is empty, a Label then under its value.
        stored = alias if alias or (alias is not None and kind != "labels") else value
        yield child, (*path, stored)
        if nested:
            yield from _label_elements(child, kind, nested, (*path, stored))


def _prompts(element: Element, text: str, templates: tuple[str, ...]) -> tuple[str, ...]:
    """What CLAP reads for a label: its own prompts, else its name and synonyms, in templates or in captions."""
    if own := _split(element.get("prompt"), "|"):
        return own
    synonyms = _split(element.get("predicted_values"), ",")
    if not templates:
        return prompts_for(text, synonyms)
    if templates == (_CAPTIONS,):
        return ensemble(text, synonyms)
    names = [spoken(name) for name in (text, *synonyms)]
    return tuple(dict.fromkeys(template.replace("{}", name) for template in templates for name in names))


def _threshold(control: Any) -> float | None:
    text = control.attr.get("model_score_threshold")
    if text is None:
        return None
    try:
        threshold = float(text)
    except ValueError:
        threshold = -1.0
    if not 0.0 <= threshold <= 1.0:
        raise LabelConfigError(f'{_title(control)} has model_score_threshold="{text}": it must be between 0 and 1.')
    return threshold


def _split(text: str | None, separator: str) -> tuple[str, ...]:
    parts = (part.strip() for part in (text or "").split(separator))
    return tuple(dict.fromkeys(part for part in parts if part))


def _is_true(control: Any, attribute: str) -> bool:
    return bool(control.attr.get(attribute) == "true")


def _title(control: Any) -> str:
    return f"The {control.tag} “{control.name}”"
