# SPDX-License-Identifier: Apache-2.0
"""The picture of the README: what runs where. SVG, without a drawing program and without fonts of its own."""

from __future__ import annotations

from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 960, 430
_FONT = "font-family='DejaVu Sans, Verdana, Helvetica, sans-serif'"
_MONO = "font-family='DejaVu Sans Mono, Menlo, Consolas, monospace'"
_INK, _GREY, _LINE = "#1f2933", "#52606d", "#7b8794"


class Box(NamedTuple):
    """A rectangle with a title and lines of text; the first line of `lines` is below the title."""

    x: int
    y: int
    width: int
    height: int
    title: str
    lines: tuple[str, ...] = ()
    fill: str = "#ffffff"


class Arrow(NamedTuple):
    """A line with a head at its end, and a label in its middle."""

    x1: int
    y1: int
    x2: int
    y2: int
    label: str = ""


PLACES = (
    Box(20, 20, 280, 390, "PC, build host", fill="#eef6ff"),
    Box(400, 20, 540, 390, "device: Linux, aarch64 or x86-64", fill="#f0f9f0"),
)
BOXES = (
    Box(40, 60, 240, 66, "manifest and directory", ("sextant init, sextant import",)),
    Box(40, 166, 240, 86, "sextant", ("lint, pack, sign", "squashfs + dm-verity + Ed25519")),
    Box(40, 306, 240, 86, "northstar try", ("a throw-away runtime", "for who writes containers")),
    Box(
        420,
        60,
        220,
        106,
        "northstar",
        ("the daemon, Python:", "decides, verifies, mounts,", "reports"),
        "#fff8e6",
    ),
    Box(420, 206, 220, 66, "engine", ("9 KB of C: system calls",), "#fff8e6"),
    Box(420, 306, 220, 86, "nstar, your client", ("install, start, stop, logs …",)),
    Box(
        700,
        60,
        220,
        106,
        "repositories",
        ("NPK packages, signed,", "mounted by loop, dm-verity,", "squashfs: never unpacked"),
    ),
    Box(700, 206, 220, 66, "container", ("init, pid 1 of its namespaces",), "#fdeeee"),
    Box(700, 306, 220, 86, "your program", ("own root, uid, cgroup,", "capabilities, seccomp"), "#fdeeee"),
)
ARROWS = (
    Arrow(160, 126, 160, 166),
    Arrow(160, 252, 160, 306),
    Arrow(280, 209, 420, 340),
    Arrow(640, 113, 700, 113),
    Arrow(530, 166, 530, 206, "programs"),
    Arrow(640, 239, 700, 239, "clone"),
    Arrow(810, 272, 810, 306, "execve"),
)
CONSOLE = Arrow(408, 354, 408, 90)
"""From nstar past the engine to the daemon."""


def svg() -> str:
    """The picture."""
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' "
        f"height='{HEIGHT}' role='img' aria-label='What runs where'>",
        "<!-- Made by tools/generate. -->",
        f"<defs><marker id='head' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' markerHeight='7' "
        f"orient='auto'><path d='M0 0L10 5L0 10z' fill='{_LINE}'/></marker></defs>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' rx='10' fill='#ffffff'/>",
        *(line for box in PLACES for line in _place(box)),
        *(line for box in BOXES for line in _box(box)),
        *(line for arrow in ARROWS for line in _arrow(arrow)),
        *_console(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _place(box: Box) -> list[str]:
    return [
        _rectangle(box, "#cbd2d9"),
        _text(box.x + 20, box.y + 26, box.title, size=15, colour=_GREY, weight="bold"),
    ]


def _box(box: Box) -> list[str]:
    font = _MONO if box.title in ("sextant", "northstar", "northstar try") else _FONT
    lines = [
        _rectangle(box, _LINE),
        _text(box.x + 14, box.y + 26, box.title, size=16, font=font, weight="bold"),
    ]
    for number, line in enumerate(box.lines):
        lines.append(_text(box.x + 14, box.y + 49 + 20 * number, line, size=13, colour=_GREY))
    return lines


def _arrow(arrow: Arrow) -> list[str]:
    lines = [
        f"<path d='M{arrow.x1} {arrow.y1}L{arrow.x2} {arrow.y2}' stroke='{_LINE}' stroke-width='2' "
        "fill='none' marker-end='url(#head)'/>"
    ]
    if arrow.label:
        x, y = (arrow.x1 + arrow.x2) // 2, (arrow.y1 + arrow.y2) // 2
        if arrow.x1 == arrow.x2:
            lines.append(_text(x + 8, y + 4, arrow.label, size=12, colour=_GREY))
        else:
            lines.append(_text(x, y - 9, arrow.label, size=12, colour=_GREY, anchor="middle"))
    return lines


def _console() -> list[str]:
    x, top, bottom = CONSOLE.x1, CONSOLE.y2, CONSOLE.y1
    return [
        f"<path d='M420 {bottom}H{x}V{top}H420' stroke='{_LINE}' stroke-width='2' fill='none' "
        "marker-end='url(#head)'/>",
        _text(430, 294, "console: JSON on a socket", size=12, colour=_GREY),
        _text(350, 200, "one file: .npk", size=12, colour=_GREY, anchor="middle"),
    ]


def _rectangle(box: Box, stroke: str) -> str:
    return (
        f"<rect x='{box.x}' y='{box.y}' width='{box.width}' height='{box.height}' rx='8' "
        f"fill='{box.fill}' stroke='{stroke}' stroke-width='1.5'/>"
    )


def _text(
    x: int,
    y: int,
    text: str,
    *,
    size: int,
    colour: str = _INK,
    font: str = _FONT,
    weight: str = "normal",
    anchor: str = "start",
) -> str:
    return (
        f"<text x='{x}' y='{y}' {font} font-size='{size}' font-weight='{weight}' fill='{colour}' "
        f"text-anchor='{anchor}'>{escape(text)}</text>"
    )
