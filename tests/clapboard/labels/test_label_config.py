from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from label_studio_sdk.label_interface import LabelInterface

from clapboard.errors import LabelConfigError, SourceError
from clapboard.labels.captions import ensemble
from clapboard.labels.label_config import parse_label_config
from clapboard.labels.label_space import Control, LabelSpace, label_space_of
from clapboard.labels.prompts import prompts_for
from clapboard.store.catalog import Encoder
from clapboard.suggest.prediction import compute_class_weights, model_version

AUDIO = '<Audio name="audio" value="$audio"/>'
CHOICES = '<Choices name="sound" toName="audio"><Choice value="dog"/><Choice value="rain"/></Choices>'


def config(*tags: str) -> str:
    return f"<View>{''.join(tags)}</View>"


def space(*tags: str) -> LabelSpace:
    return parse_label_config(config(AUDIO, *tags))


def only_control(*tags: str) -> Control:
    (control,) = space(*tags).controls
    return control


def prompts(*tags: str) -> list[tuple[str, ...]]:
    return [label.prompts for label in only_control(*tags).labels]


def refusal(xml: str) -> str:
    with pytest.raises(LabelConfigError) as caught:
        parse_label_config(xml)
    return str(caught.value)


RICH = """<?xml version="1.0"?>
<!-- { "data": {"audio": "x"} } -->
<View style="display: flex">
  <?editor hint="none"?>
  <Style>.a { color: red }</Style>
  <Header value="What is it?" size="4"/>
  <Audio name="audio" value="$audio" zoom="true" hotkey="space" sync="video"/>
  <Video name="video" value="$video" sync="audio"/>
  <Paragraphs name="text" value="$text" audioUrl="$audio"/>
  <Filter name="filter" toName="events"/>
  <Choices name="sound" toName="audio" choice="multiple" showInline="true" model_score_threshold="0.35">
    <View><Choice value="Dog bark" alias="dog" hint="woof" hotkey="d" html="&lt;b&gt;Dog&lt;/b&gt;"/></View>
    <Choice value="Rain" selected="true"/>
  </Choices>
  <View visibleWhen="choice-selected" whenTagName="sound" whenChoiceValue="dog">
    <Choices name="size" toName="audio" choice="single-radio"><Choice value="small"/><Choice value="large"/></Choices>
  </View>
  <Labels name="events" toName="audio" choice="single">
    <Label value="Bark" alias="b"/><Label value="Growl" alias=""/>
  </Labels>
  <Choices name="quality" toName="audio" perRegion="true" whenTagName="events">
    <Choice value="clean"/><Choice value="noisy"/>
  </Choices>
  <Taxonomy name="kind" toName="audio">
    <Choice value="Animal"><Choice value="Dog" alias="canis"/><Choice value="Other"/></Choice>
    <Choice value="Other"/>
  </Taxonomy>
  <TextArea name="note" toName="audio"/>
  <Rating name="stars" toName="audio"/>
  <Number name="count" toName="audio"/>
  <DateTime name="when" toName="audio"/>
  <ParagraphLabels name="speakers" toName="text"><Label value="A"/></ParagraphLabels>
  <VideoRectangle name="box" toName="video"/>
  <Relations><Relation value="same"/></Relations>
</View>
""".strip()


def test_every_control_on_the_audio_is_understood_and_those_of_other_objects_are_left_out() -> None:
    rich = parse_label_config(RICH)
    assert (rich.audio_name, rich.audio_key) == ("audio", "audio")
    assert [(c.name, c.kind, c.multiple, c.per_region, c.threshold) for c in rich.controls] == [
        ("sound", "choices", True, False, 0.35),
        ("size", "choices", False, False, None),
        ("events", "labels", False, False, None),
        ("quality", "choices", False, True, None),
        ("kind", "taxonomy", True, False, None),
        ("note", "textarea", False, False, None),
        ("stars", "rating", False, False, None),
        ("count", "number", False, False, None),
        ("when", "datetime", False, False, None),
    ]
    assert {control.to_name for control in rich.controls} == {"audio"}
    assert [control.name for control in rich.predicted] == ["sound", "size"]


def test_a_control_that_is_not_predicted_says_why_in_one_sentence_with_its_name() -> None:
    for control in parse_label_config(RICH).controls:
        if control.predicted:
            assert control.why_not_predicted == ""
        else:
            assert f"“{control.name}”" in control.why_not_predicted
            assert control.why_not_predicted.endswith(".")


def test_what_is_stored_is_the_alias_before_the_value_and_a_path_in_a_taxonomy() -> None:
    by_name = {control.name: control for control in parse_label_config(RICH).controls}
    assert [label.value for label in by_name["sound"].labels] == ["dog", "Rain"]
    assert [label.path for label in by_name["sound"].labels] == [("dog",), ("Rain",)]
    assert [label.value for label in by_name["events"].labels] == ["b", "Growl"]
    assert [label.path for label in by_name["kind"].labels] == [
        ("Animal",),
        ("Animal", "canis"),
        ("Animal", "Other"),
        ("Other",),
    ]


def test_stored_values_pass_the_sdks_validation_for_every_control_with_labels() -> None:
    interface = LabelInterface(RICH.partition("?>")[2].replace('<?editor hint="none"?>', ""))
    for control in parse_label_config(RICH).controls:
        for label in control.labels:
            value: dict[str, Any] = {control.kind: [list(label.path) if control.kind == "taxonomy" else label.value]}
            if control.kind == "labels":
                value |= {"start": 0.0, "end": 1.0}
            result = {"from_name": control.name, "to_name": "audio", "type": control.kind, "value": value}
            assert interface.validate_prediction({"result": [result], "score": 0.5}, return_errors=True) == []


def test_what_is_stored_is_kept_to_the_letter() -> None:
    label = only_control(
        '<Choices name="c" toName="audio"><Choice value=" Dög &amp; “cat” &#10;2 "/></Choices>'
    ).labels[0]
    assert label.value == " Dög & “cat” \n2 "


def test_the_prompt_of_a_label_is_made_from_what_people_see_not_from_its_alias() -> None:
    assert prompts('<Choices name="c" toName="audio"><Choice value="Dog bark" alias="k9"/></Choices>') == [
        prompts_for("Dog bark")
    ]


def test_predicted_values_are_synonyms_beside_the_labels_own_name() -> None:
    tag = '<Choices name="c" toName="audio"><Choice value="dog" predicted_values="dog bark, barking ,,"/></Choices>'
    assert prompts(tag) == [prompts_for("dog", ("dog bark", "barking"))]
    assert prompts(tag) != [prompts_for("dog")]


def test_the_prompts_of_a_choice_are_used_as_they_are_before_its_synonyms() -> None:
    choice = '<Choice value="dog" prompt="A dog, barking. | A puppy yaps |" predicted_values="hound"/>'
    assert prompts(f'<Choices name="c" toName="audio" prompt="Say {{}}">{choice}</Choices>') == [
        ("A dog, barking.", "A puppy yaps")
    ]


def test_the_prompt_of_a_control_is_a_template_for_all_its_labels_and_synonyms_as_words() -> None:
    tag = """<Choices name="c" toName="audio" prompt="I hear {}.|{} in the background">
      <Choice value="Rain" predicted_values="rain_fall"/><Choice value="wind"/></Choices>"""
    assert prompts(tag) == [
        ("I hear rain.", "I hear rain fall.", "rain in the background", "rain fall in the background"),
        ("I hear wind.", "wind in the background"),
    ]


CAPTIONS = """<Choices name="c" toName="audio" prompt="captions">
  <Choice value="Hand_saw" predicted_values="saw"/><Choice value="wind" prompt="It blows."/></Choices>"""


def test_the_prompt_captions_asks_for_an_ensemble_of_captions() -> None:
    assert prompts(CAPTIONS) == [ensemble("Hand_saw", ("saw",)), ("It blows.",)]
    assert len(prompts(CAPTIONS)[0]) > 10


def test_a_class_weight_is_the_mean_over_the_ensemble_and_the_version_tells_it_apart() -> None:
    def embed_texts(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = np.array([[len(text), text.count("e"), 1] for text in texts], np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    label_space = parse_label_config(config(AUDIO, CAPTIONS))
    mean = embed_texts(ensemble("Hand_saw", ("saw",))).mean(axis=0)
    assert compute_class_weights(label_space, embed_texts)[0] == pytest.approx(mean / np.linalg.norm(mean))
    plain = parse_label_config(config(AUDIO, CAPTIONS.replace(' prompt="captions"', "")))
    encoder = Encoder("mini", "0" * 12, "float32", 3, 1.0)
    assert model_version(encoder, label_space) != model_version(encoder, plain)


def test_labels_without_label_studio_may_be_read_in_captions_too() -> None:
    assert [label.prompts for label in label_space_of(["rain"], ensemble).controls[0].labels] == [ensemble("rain")]
    assert [label.prompts for label in label_space_of(["rain"]).controls[0].labels] == [prompts_for("rain")]


def test_braces_in_a_label_are_no_template() -> None:
    tag = '<Choices name="c" toName="audio" prompt="A {} here"><Choice value="{0} {}"/></Choices>'
    assert prompts(tag) == [("A {0} {} here",)]


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ('<Choices name="c" toName="audio" value="$options"/>', "each task's data"),
        ('<Choices name="c" toName="audio" value="$options"><Choice value="other"/></Choices>', "each task's data"),
        ('<Choices name="c" toName="audio"><Choice value="$first"/><Choice value="other"/></Choices>', "each task's"),
        ('<Choices name="c" toName="audio" perRegion="true"><Choice value="a"/></Choices>', "perRegion"),
        ('<Choices name="c" toName="audio" perItem="true"><Choice value="a"/></Choices>', "perItem"),
        ('<Choices name="c" toName="audio" allowNested="true"><Choice value="a"/></Choices>', "allowNested"),
        ('<Taxonomy name="c" toName="audio" apiUrl="https://labels.example/tree"/>', "Labels only"),
        ('<Pairwise name="c" toName="audio,text"/><Text name="text" value="$text"/>', "Labels only"),
    ],
)
def test_a_control_that_this_release_cannot_predict_is_understood_with_its_reason(tag: str, reason: str) -> None:
    control = only_control(tag)
    assert not control.predicted
    assert reason in control.why_not_predicted


def test_nested_choices_are_paths_where_they_are_allowed_and_ignored_elsewhere_as_the_editor_does() -> None:
    choices = '<Choice value="a"><Choice value="b"/></Choice>'
    flat = only_control(f'<Choices name="c" toName="audio">{choices}</Choices>')
    nested = only_control(f'<Choices name="c" toName="audio" allowNested="true">{choices}</Choices>')
    assert [label.path for label in flat.labels] == [("a",)]
    assert [label.path for label in nested.labels] == [("a",), ("a", "b")]


def test_names_of_tags_and_attributes_count_in_any_case_as_they_do_in_the_editor() -> None:
    sound = '<choices name="sound" toName="audio" PERREGION="true"><CHOICE value="dog" Alias="d"/></choices>'
    (control,) = parse_label_config(f'<view><audio name="audio" Value="$audio"/>{sound}</view>').controls
    assert (control.kind, control.per_region, [label.value for label in control.labels]) == ("choices", True, ["d"])


def test_a_taxonomy_of_one_usage_is_a_single_choice() -> None:
    tag = '<Taxonomy name="c" toName="audio" maxUsages="1"><Choice value="a"/></Taxonomy>'
    assert not only_control(tag).multiple


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("<View", "not well-formed"),
        ("<View><Audio></View>", "mismatched tag"),
        ("\ud800", "not well-formed"),
        ("<View>\x00</View>", "not well-formed"),
        ("<View/>", "no Audio"),
        (config('<Text name="t" value="$t"/><Choices name="c" toName="t"><Choice value="a"/></Choices>'), "no Audio"),
        (config('<Audio name="audio"/>', CHOICES), "no Audio"),
        (config(AUDIO, '<Audio name="b" value="$b"/>', CHOICES), "2 Audio objects, “audio” and “b”"),
        (config('<Audio name="audio" value="https://host/a.wav"/>', CHOICES), "“audio” doesn't name one key"),
        (config('<Audio name="audio" valueList="$all"/>', CHOICES), "“audio” doesn't name one key"),
        (config('<Audio name="audio" value="$a[{{idx}}].url"/>', CHOICES), "“audio” doesn't name one key"),
        (config(AUDIO), "No control labels the Audio “audio”"),
        (config(AUDIO, '<Melody name="m" toName="audio"/>'), "Melody “m” is no control that can label audio"),
        (config(AUDIO, '<RectangleLabels name="r" toName="audio"><Label value="a"/></RectangleLabels>'), "“r” is no"),
        (config(AUDIO, CHOICES, '<TextArea name="t" toName="nowhere"/>'), 'TextArea “t” has toName="nowhere"'),
        (config(AUDIO, CHOICES, CHOICES), "“sound” more than once"),
        (config(AUDIO, '<Choices name="c" toName="audio"/>'), "Choices “c” has no labels: add a Choice"),
        (config(AUDIO, '<Labels name="l" toName="audio"><Choice value="a"/></Labels>'), "add a Label"),
        (config(AUDIO, CHOICES.replace('"rain"', '"dog"')), "“dog” more than once"),
        (config(AUDIO, CHOICES.replace('"rain"', '"rain" alias="dog"')), "“dog” more than once"),
        (config(AUDIO, CHOICES.replace('"rain"', '""')), "value or alias is empty"),
        (config(AUDIO, CHOICES.replace('"rain"', '"rain" alias=""')), "value or alias is empty"),
        (config(AUDIO, CHOICES.replace('toName="audio"', 'toName="audio" prompt="A sound"')), "a prompt without {}"),
        (
            config(AUDIO, CHOICES.replace('toName="audio"', 'toName="audio" prompt="captions|A"')),
            "write “captions” alone",
        ),
        (
            config(AUDIO, CAPTIONS.replace("Hand_saw", "/")),
            "the label “/”, which has no word to make captions of: give it",
        ),
        (config(AUDIO, CHOICES.replace('toName="audio"', 'toName="audio" model_score_threshold="2"')), '="2"'),
        (config(AUDIO, CHOICES.replace('toName="audio"', 'toName="audio" model_score_threshold="nan"')), '="nan"'),
        (config(AUDIO, CHOICES.replace('toName="audio"', 'toName="audio" model_score_threshold="high"')), '="high"'),
        ("<View>" * 300 + "</View>" * 300, "can't be read"),
        ("<View>" * 5000 + "</View>" * 5000, "can't be read"),
    ],
)
def test_a_config_that_cannot_be_used_is_refused_in_one_sentence_that_names_the_fault(xml: str, message: str) -> None:
    said = refusal(xml)
    assert message in said
    assert said.endswith(".")
    assert "\n" not in said


BILLION_LAUGHS = f"""<!DOCTYPE View [<!ENTITY a "ha">{
    "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True))
}]>{config(AUDIO, CHOICES.replace("dog", "&j;"))}"""


@pytest.mark.parametrize(
    "xml",
    [
        BILLION_LAUGHS,
        f'<!DOCTYPE View [<!ENTITY x SYSTEM "file:///etc/passwd">]>{config(AUDIO, CHOICES.replace("dog", "&x;"))}',
        f'<!DOCTYPE View SYSTEM "http://127.0.0.1:1/evil.dtd">{config(AUDIO, CHOICES)}',
        f"<!DOCTYPE View>{config(AUDIO, CHOICES)}",
    ],
    ids=["billion laughs", "external entity", "external DTD", "bare DOCTYPE"],
)
def test_dtds_and_entities_are_refused(xml: str) -> None:
    assert "DTD or entities" in refusal(xml)


def test_xinclude_and_unknown_entities_reach_no_file() -> None:
    include = '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="/etc/passwd" parse="text"/>'
    assert [label.value for label in only_control(CHOICES, include).labels] == ["dog", "rain"]
    assert "undefined entity" in refusal(config(AUDIO, CHOICES.replace("dog", "&x;")))


def test_the_fingerprint_does_not_change_with_what_changes_no_prediction() -> None:
    plain = space(CHOICES).fingerprint
    assert re.fullmatch("[0-9a-f]{8}", plain)
    same = """<?xml version="1.0" encoding="utf-8"?><!-- note --><View>
      <Choices toName="audio" showInline="true" name="sound">
        <Choice hotkey="1" value="dog"/> <View><Choice value="rain" hint="wet" html="x"/></View>
      </Choices>
      <Header value="Listen"/><TextArea name="note" toName="audio"/>
      <Audio value="$audio" name="audio" zoom="true"/></View>"""
    assert parse_label_config(same).fingerprint == plain


def test_the_fingerprint_changes_with_everything_that_changes_a_prediction() -> None:
    variants = [
        config(AUDIO, CHOICES),
        config(AUDIO, CHOICES.replace("rain", "wind")),
        config(AUDIO, CHOICES.replace('"rain"', '"rain" alias="r"')),
        config(AUDIO, CHOICES.replace('"rain"', '"rain" prompt="It rains."')),
        config(AUDIO, CHOICES.replace('"rain"', '"rain" predicted_values="rainfall"')),
        config(AUDIO, CHOICES.replace('"sound"', '"noise"')),
        config(AUDIO, CHOICES.replace('"sound"', '"sound" choice="multiple"')),
        config(AUDIO, CHOICES.replace('"sound"', '"sound" model_score_threshold="0.5"')),
        config(AUDIO, CHOICES.replace('"sound"', '"sound" prompt="Hear {}"')),
        config(AUDIO, CHOICES.replace('"sound"', '"sound" prompt="captions"')),
        config(AUDIO, CHOICES, CHOICES.replace('"sound"', '"second"')),
        config(AUDIO, CHOICES.replace('<Choice value="rain"/>', "")),
        config(AUDIO.replace("$audio", "$clip"), CHOICES),
        config(AUDIO, CHOICES).replace('"audio"', '"clip"'),
    ]
    assert len({parse_label_config(xml).fingerprint for xml in variants}) == len(variants)


def test_the_fingerprint_stays_what_it_is() -> None:
    """It is part of the versions in stores: if this fails, every prediction is computed again."""
    assert space(CHOICES).fingerprint == "f1a0343e"
    assert parse_label_config(RICH).fingerprint == "d1b0945b"


def test_the_audio_of_a_task_is_found_under_its_key_or_within_a_key() -> None:
    nested = parse_label_config(config(AUDIO.replace("$audio", "$clip.url"), CHOICES))
    assert nested.audio_key == "clip.url"
    assert nested.audio_uri({"clip": {"url": " https://host/a.wav "}}) == "https://host/a.wav"
    assert nested.audio_uri({"clip.url": "s3://b/a.wav"}) == "s3://b/a.wav"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "no “audio” in its data"),
        ({"audio": None}, "no “audio” in its data"),
        ({"audio": " "}, "“audio” is empty"),
        ({"audio": ["a.wav"]}, "“audio” is a list"),
        ({"audio": {"url": "a.wav"}}, "“audio” is a dict"),
    ],
)
def test_a_task_without_audio_is_an_error_that_names_the_key(data: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        space(CHOICES).audio_uri(data)


def test_any_string_gives_a_label_space_or_a_label_config_error() -> None:
    chance = random.Random(2)
    pieces = [*re.findall(r"<[^>]*>|[^<]+", RICH), "<", "&#0;", "&amp;", "]]>", "<![CDATA[", "\x00", "\ud800", "é", "$"]
    attributes = [
        'name="audio"',
        'toName="audio,sound"',
        'value="$x"',
        'alias=""',
        'name=""',
        'prompt="|"',
        "xml:id='1'",
    ]
    outcomes = {"space": 0, "refused": 0}
    for _ in range(1500):
        xml = RICH
        for _ in range(chance.randint(1, 3)):
            start, length = chance.randrange(len(xml)), chance.choice([0, 1, 5, 60])
            insert = chance.choice([chance.choice(pieces), f" {chance.choice(attributes)} ", ""])
            xml = xml[:start] + insert + xml[start + length :]
        try:
            assert isinstance(parse_label_config(xml).fingerprint, str)
            outcomes["space"] += 1
        except LabelConfigError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50


def test_whole_tags_put_anywhere_give_a_label_space_or_a_label_config_error() -> None:
    chance = random.Random(3)
    names = [
        "Audio",
        "Choices",
        "Choice",
        "Label",
        "Labels",
        "Taxonomy",
        "Chat",
        "ReactCode",
        "View",
        "Video",
        "x:y",
        "é",
    ]
    keys = [
        "name",
        "toName",
        "value",
        "valueList",
        "alias",
        "indexFlag",
        "choice",
        "prompt",
        "perRegion",
        "apiUrl",
        "xml:id",
    ]
    values = ["audio", "$audio", "sound", "", "a", "true", "{}", "a,b", "$", "[", "0", "{{idx}}"]

    def tag(depth: int) -> str:
        name = chance.choice(names)
        attributes = " ".join(f'{key}="{chance.choice(values)}"' for key in chance.sample(keys, chance.randint(0, 4)))
        inside = "".join(tag(depth - 1) for _ in range(chance.randint(0, 3))) if depth else ""
        return f"<{name} {attributes}>{inside}</{name}>"

    refused = 0
    for _ in range(800):
        try:
            parse_label_config(config(chance.choice(["", AUDIO]), chance.choice(["", CHOICES]), tag(2)))
        except LabelConfigError:
            refused += 1
    assert 0 < refused < 800


def test_reading_a_label_config_needs_no_torch() -> None:
    code = "import clapboard.labels.label_config, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("said", "channel"), [("left", "left"), ("Right ", "right"), ("1", "left"), ("7", "7"), ("", ""), ("mix", "")]
)
def test_the_audio_names_the_channel_to_embed(said: str, channel: str) -> None:
    config = '<View><Audio name="a" value="$a"{}/><Choices name="c" toName="a"><Choice value="x"/></Choices></View>'
    plain, named = parse_label_config(config.format("")), parse_label_config(config.format(f' Channel="{said}"'))
    assert named.channel == channel
    assert (named.fingerprint == plain.fingerprint) == (not channel)


@pytest.mark.parametrize("said", ["middle", "0", "-1", "1.5", "1000", "left right"])
def test_an_unknown_channel_is_refused(said: str) -> None:
    with pytest.raises(LabelConfigError, match=r"The Audio “a” has channel=.*write left, right, or a number"):
        parse_label_config(
            f'<View><Audio name="a" value="$a" channel="{said}"/>'
            '<Choices name="c" toName="a"><Choice value="x"/></Choices></View>'
        )
