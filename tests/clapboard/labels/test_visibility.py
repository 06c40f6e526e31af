"""Which controls are shown, as Label Studio's editor decides it; `tests/e2e/test_answers` asks the editor itself."""

from __future__ import annotations

import pytest

from clapboard.labels.label_config import parse_label_config

A = '<Choices name="a" toName="audio"><Choice value="dog"/><Choice value="cat" alias="felis"/></Choices>'


def config(*controls: str) -> str:
    return f'<View><Audio name="audio" value="$audio"/>{"".join(controls)}</View>'


def control(name: str, attributes: str = "", *labels: str) -> str:
    choices = "".join(f'<Choice value="{label}"/>' for label in labels or ("x", "y"))
    return f'<Choices name="{name}" toName="audio" {attributes}>{choices}</Choices>'


def hidden(xml: str, **chosen: str) -> set[str]:
    values = {name: [value] if value else [] for name, value in chosen.items()}
    return parse_label_config(xml).visibility.hidden(values)


WHEN_DOG = 'visibleWhen="choice-selected" whenTagName="a" whenChoiceValue="dog"'


@pytest.mark.parametrize(
    ("attributes", "shown_by"),
    [
        ('visibleWhen="choice-selected" whenTagName="a"', {"dog", "felis"}),
        (WHEN_DOG, {"dog"}),
        ('VISIBLEWHEN="choice-selected" whentagname="a" WhenChoiceValue="dog,cat"', {"dog", "felis"}),
        ('visibleWhen="choice-selected" whenTagName="a" whenChoiceValue="felis"', {"felis"}),
        ('visibleWhen="choice-selected" whenTagName="a" whenChoiceValue="cow, dog"', set()),  # the space counts
        ('visibleWhen="choice-unselected" whenTagName="a"', {""}),
        ('visibleWhen="choice-unselected" whenTagName="a" whenChoiceValue="dog"', {"", "felis"}),
        ('visibleWhen="choice-selected"', {"dog", "felis"}),
        ('visibleWhen="choice-unselected"', {""}),
        ('whenChoiceValue="dog"', {"dog"}),
        ('whenChoiceValue="dog,felis"', set()),  # without visibleWhen it is one value
        ('visibleWhen="choice-selected" whenTagName="b"', set()),  # itself
        ('visibleWhen="choice-selected" whenTagName="nobody"', set()),
        ('visibleWhen="choice-unselected" whenTagName="nobody"', {"", "dog", "felis"}),
        ('visibleWhen="region-selected"', set()),
        ('visibleWhen="region-selected" whenTagName="a" whenLabelValue="dog"', set()),
        ('visibleWhen="region-selected" whenRole="user"', set()),
        ('visibleWhen="no-region-selected"', {"", "dog", "felis"}),
        ('visibleWhen="Choice-Selected" whenTagName="a"', {"", "dog", "felis"}),  # the editor knows no such thing
        ('whenTagName="a"', {"", "dog", "felis"}),
    ],
)
@pytest.mark.parametrize("on", ["control", "view", "far view"])
def test_a_condition_on_a_control_or_on_a_view_around_it(on: str, attributes: str, shown_by: set[str]) -> None:
    if on == "control":
        xml = config(A, control("b", attributes))
    else:
        inner = control("b") if on == "view" else f"<View><View>{control('b')}</View></View>"
        xml = config(A, f"<View {attributes}>{inner}</View>")
    assert {value for value in ("", "dog", "felis") if "b" not in hidden(xml, a=value)} == shown_by


def test_every_view_around_it_must_be_shown() -> None:
    inner = f'<View visibleWhen="choice-selected" whenTagName="b">{control("c")}</View>'
    xml = config(A, control("b"), f"<View {WHEN_DOG}>{inner}</View>")
    assert hidden(xml, a="dog", b="x") == set()
    assert hidden(xml, a="felis", b="x") == hidden(xml, a="dog") == {"c"}


def test_what_depends_on_a_hidden_control_is_hidden_with_it() -> None:
    xml = config(
        A,
        control("b", WHEN_DOG),
        control("c", 'visibleWhen="choice-selected" whenTagName="b" whenChoiceValue="x"'),
        control("d", 'visibleWhen="choice-unselected" whenTagName="b" whenChoiceValue="x"'),
    )
    assert hidden(xml, a="dog", b="x") == {"d"}
    assert hidden(xml, a="felis", b="x") == {"b", "c"}


def test_controls_that_depend_on_each_other_are_never_shown() -> None:
    waits = 'visibleWhen="choice-{}" whenTagName="{}"'
    for kind in ("selected", "unselected"):
        xml = config(A, control("b", waits.format("selected", "c")), control("c", waits.format(kind, "b")))
        assert hidden(xml, a="dog", b="x", c="x") == {"b", "c"}
    many = [control(f"c{i}", 'visibleWhen="choice-selected"') for i in range(60)]
    assert len(hidden(config(*many), **{f"c{i}": "x" for i in range(60)})) == 60
    assert hidden(config(A, *many), a="dog") == set()


def test_a_taxonomy_and_controls_of_other_objects_count_too() -> None:
    taxonomy = (
        '<Taxonomy name="a" toName="audio"><Choice value="Animal"><Choice value="dog"/></Choice></Taxonomy>'
        '<Text name="text" value="$text"/><Choices name="t" toName="text"><Choice value="yes"/></Choices>'
    )
    xml = config(taxonomy, control("b", WHEN_DOG), control("c", 'visibleWhen="choice-selected" whenTagName="t"'))
    assert hidden(xml, a="Animal / dog") == {"c"}
    assert hidden(xml, a="Animal", t="yes") == {"b"}


def test_other_tags_have_no_condition_of_their_own() -> None:
    rating = '<Rating name="{}" toName="audio" visibleWhen="region-selected"/>'
    xml = config(A, rating.format("r"), f'<View visibleWhen="region-selected">{rating.format("s")}</View>')
    assert hidden(xml) == {"s"}


class TestSuggested:
    @pytest.mark.parametrize(
        ("controls", "predicted"),
        [
            ((A, control("b", WHEN_DOG)), ["a", "b"]),
            ((A, control("b", 'visibleWhen="region-selected"')), ["a"]),
            ((A, control("b", 'visibleWhen="no-region-selected"')), ["a", "b"]),
            ((A, control("b", WHEN_DOG.replace("dog", "cow"))), ["a"]),
            (
                (A, control("b", WHEN_DOG), control("c", WHEN_DOG.replace('"a"', '"b"').replace("dog", "x"))),
                ["a", "b", "c"],
            ),
            ((control("a", "perRegion='true'", "dog"), control("b", WHEN_DOG)), []),
            ((control("a", "perRegion='true'", "dog"), control("b", WHEN_DOG.replace("ice-s", "ice-uns"))), ["b"]),
            ((control("a", 'visibleWhen="choice-selected" whenTagName="b"'), control("b", WHEN_DOG)), []),
        ],
    )
    def test_only_what_suggestions_can_bring_into_view(self, controls: tuple[str, ...], predicted: list[str]) -> None:
        label_space = parse_label_config(config(*controls))
        assert [one.name for one in label_space.predicted] == predicted
        for one in label_space.controls:
            assert one.predicted or one.why_not_predicted.endswith(".")

    def test_choices_that_are_shown_at_times_leave_the_control_to_people(self) -> None:
        inner = f'<View {WHEN_DOG}><Choice value="x"/></View><Choice value="y"/>'
        (_, b) = parse_label_config(config(A, f'<Choices name="b" toName="audio">{inner}</Choices>')).controls
        assert "shows some of its choices only at times" in b.why_not_predicted

    def test_a_condition_changes_the_fingerprint_and_its_absence_nothing(self) -> None:
        without = parse_label_config(config(A, control("b"))).fingerprint
        known = [parse_label_config(config(A, control("b", when))).fingerprint for when in ("", WHEN_DOG)]
        assert known[0] == without != known[1]
        far = '<View visibleWhen="region-selected"><Rating name="r" toName="audio"/></View>'
        assert parse_label_config(config(A, control("b"), far)).fingerprint == without
