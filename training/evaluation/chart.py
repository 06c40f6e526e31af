"""A line chart as SVG, of shares between 0 and 1 over a count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 20, 20, 90
_LEGEND_COLUMNS = 4
_COLOURS = ("#e4572e", "#2e86ab", "#4caf50", "#9c6ade", "#f2a541", "#555555", "#c2185b")


def line_chart(lines: Mapping[str, Sequence[tuple[float, float]]], ticks: Mapping[float, str], caption: str) -> str:
    """Draws lines, given by name as points (place ≥ 0 on the horizontal axis, share in [0, 1]).

    `ticks` names places of the horizontal axis.
    """
    places = [*ticks, *(place for points in lines.values() for place, _ in points)]
    furthest = max(places) or 1.0  # if all are 0, they are one column
    parts = [_grid(), *(_tick(_x(place, furthest), name) for place, name in ticks.items())]
    for number, (name, points) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        corners = " ".join(f"{_x(place, furthest):.1f},{_y(share):.1f}" for place, share in points)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{corners}"/>')
        parts.append(_legend(number, name, colour))
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 8}" text-anchor="end">{escape(caption)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12" fill="#444"><rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _x(place: float, furthest: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * place / furthest


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share


def _grid() -> str:
    lines = ""
    for share in (0, 0.25, 0.5, 0.75, 1):
        lines += f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_y(share)}" y2="{_y(share)}" stroke="#ddd"/>'
        lines += f'<text x="{_LEFT - 8}" y="{_y(share)}" text-anchor="end" dy="4">{share:.0%}</text>'
    return lines


def _tick(x: float, name: str) -> str:
    return f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{escape(name)}</text>'


def _legend(number: int, name: str, colour: str) -> str:
    row, column = divmod(number, _LEGEND_COLUMNS)
    x, y = _LEFT + (_WIDTH - _LEFT - _RIGHT) * column / _LEGEND_COLUMNS, _HEIGHT - _BOTTOM + 40 + 16 * row
    line = f'<line x1="{x:.1f}" x2="{x + 14:.1f}" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" stroke-width="2"/>'
    return f'{line}<text x="{x + 18:.1f}" y="{y}" font-size="10">{escape(name)}</text>'
