"""Charts: what is drawn can be read back."""

from __future__ import annotations

from xml.dom import minidom

from training.evaluation.chart import line_chart


def test_every_line_is_drawn_to_scale_and_named() -> None:
    lines = {"ours & theirs": [(0.0, 0.0), (1.0, 0.5), (2.0, 1.0)], "flat": [(0.0, 0.5), (4.0, 0.5)]}
    drawn = minidom.parseString(line_chart(lines, {0.0: "0", 2.0: "many"}, "labels <given>"))
    rising, flat = (_points(line) for line in drawn.getElementsByTagName("polyline"))
    assert rising[1] == ((rising[0][0] + rising[2][0]) / 2, (rising[0][1] + rising[2][1]) / 2)
    assert rising[0][1] > rising[2][1]  # upwards
    assert flat[0][1] == flat[1][1] == rising[1][1]
    assert flat[1][0] - flat[0][0] == 2 * (rising[2][0] - rising[0][0])  # the last tick isn't the end
    told = [text.firstChild.nodeValue for text in drawn.getElementsByTagName("text")]
    assert {"ours & theirs", "flat", "many", "labels <given>", "100%"} <= set(told)


def test_a_single_place_is_drawn_too() -> None:
    drawn = minidom.parseString(line_chart({"ours": [(0.0, 0.5)]}, {0.0: "4"}, "labels"))
    (line,) = drawn.getElementsByTagName("polyline")
    assert len(_points(line)) == 1


def _points(line: minidom.Element) -> list[tuple[float, float]]:
    pairs = (point.split(",") for point in line.getAttribute("points").split())
    return [(float(x), float(y)) for x, y in pairs]
