"""Draw the schematics of the lessons and of the board, and the map: python -m tools.schematics.

figures/schematics.toml describes each of them as boxes on a grid, arrows between them, and lanes
that say whose the boxes are. Here is the one style of all of them. The alternative text stands in
the description, too; where a page shows the picture, it gets this text.
"""

import re
import tomllib
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape

from tools.lessons import ROOT, lesson_files, read, to_text, write

FIGURES = ROOT / "figures"
DESCRIPTIONS = FIGURES / "schematics.toml"
LICENCE = "Data Poisoning from Scratch, CC BY 4.0"

# All lengths in units of a picture that is 400 wide.
WIDTH, SHOWN = 400, 640  # and how wide a page shows it
FONT, LINE = 10, 12
MARGIN, PADDING, GAP = 6, 8, 20  # around lanes, around the boxes in them, between boxes
LABEL, BACK = 21, 22  # the height of a lane's label, and of an arrow that runs back under a row
KEY = {
    "attack": "the attacker acts",
    "defense": "the defense acts",
    "core": "core path",
    "side": "side road",
}
# Role -> fill and line, for each background.
COLOURS = {
    "light": {
        "card": ("#ffffff", "#bbbbbb"),
        "lane": ("#f3f3f3", "none"),
        "lane attack": ("#fdf1ea", "none"),
        "lane defense": ("#ebf3fa", "none"),
        "box": ("#ffffff", "#555555"),
        "attack": ("#fbdccb", "#b3430f"),
        "defense": ("#cfe3f4", "#0a659c"),
        "line": ("none", "#555555"),
        "line attack": ("none", "#b3430f"),
        "line defense": ("none", "#0a659c"),
        "text": ("#222222", "none"),
    },
    "dark": {
        "card": ("#1b1b1b", "#555555"),
        "lane": ("#2a2a2a", "none"),
        "lane attack": ("#35241b", "none"),
        "lane defense": ("#1c2b38", "none"),
        "box": ("#1b1b1b", "#bbbbbb"),
        "attack": ("#5a2a12", "#ff9f70"),
        "defense": ("#123f5f", "#78c0f5"),
        "line": ("none", "#bbbbbb"),
        "line attack": ("none", "#ff9f70"),
        "line defense": ("none", "#78c0f5"),
        "text": ("#f2f2f2", "none"),
    },
}


@dataclass
class Box:
    """A box of a schematic, or a lane behind boxes: where it lies, its kind, and its text."""

    left: float
    top: float
    width: float
    height: float
    kind: str
    lines: list[str]

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height

    @property
    def x(self) -> float:
        return self.left + self.width / 2

    @property
    def y(self) -> float:
        return self.top + self.height / 2


def descriptions() -> dict[str, dict]:
    """The description of every schematic by the name of its file."""
    return tomllib.loads(DESCRIPTIONS.read_text(encoding="utf-8"))


def full(arrows: list[list]) -> list[tuple[str, str, dict[str, str]]]:
    """Arrows, each with a style, if only an empty one."""
    return [(start, end, *(style or [{}])) for start, end, *style in arrows]


def place(description: dict) -> tuple[dict[str, Box], list[Box]]:
    """Where the boxes and the lanes of a schematic lie.

    A box is [row, column, kind, text], and may go on with how many columns and rows it takes.
    A lane is [kind, label, number of rows].
    """
    cells = {name: [*cell, 1, 1][:6] for name, cell in description["boxes"].items()}
    columns = description.get("columns", 3)
    unit = (WIDTH - 2 * (MARGIN + PADDING) - GAP * (columns - 1)) / columns
    back = [cells[a] for a, _, style in full(description["arrows"]) if style.get("route") == "back"]
    below = {cell[0] + cell[5] - 1 for cell in back}
    tops, ends, lanes, y = [], [], [], MARGIN
    for kind, label, count in description["lanes"]:
        lanes.append(Box(MARGIN, y, WIDTH - 2 * MARGIN, 0, kind, [label]))
        y += LABEL
        for row in range(len(tops), len(tops) + count):
            texts = [cell[3] for cell in cells.values() if cell[0] == row and cell[5] == 1]
            tops.append(y)
            ends.append(y + LINE * (1 + max(text.count("\n") + 1 for text in texts)))
            y = ends[-1] + GAP + BACK * (row in below)
        lanes[-1].height = y - GAP + PADDING - lanes[-1].top
        y = lanes[-1].bottom + MARGIN
    boxes = {}
    for name, (row, column, kind, words, wide, tall) in cells.items():
        left = MARGIN + PADDING + column * (unit + GAP)
        width = unit * wide + GAP * (wide - 1)
        lines = words.split("\n")
        if kind == "note":  # as wide as its text, so that an arrow ends beside it
            width = min(width, max(map(length, lines)) + PADDING)
        boxes[name] = Box(left, tops[row], width, ends[row + tall - 1] - tops[row], kind, lines)
    return boxes, lanes


def length(words: str, bold: bool = False) -> float:
    """About how long a line of text is."""
    return len(words) * FONT * (0.68 if bold else 0.61)


def route(a: Box, b: Box, way: str = "") -> list[tuple[float, float]]:
    """The corners of the arrow from box A to box B.

    way: "back" runs under both boxes; "corner" leaves A up or down and enters B from the side.
    """
    sign = 1 if b.x > a.x else -1
    if way == "back":
        y = max(a.bottom, b.bottom) + LINE * 0.75
        start, end = a.x + sign * a.width / 4, b.x - sign * b.width / 4
        return [(start, a.bottom), (start, y), (end, y), (end, b.bottom)]
    leave, enter = (a.bottom, b.top) if b.y > a.y else (a.top, b.bottom)
    if way == "corner":
        return [(a.x, leave), (a.x, b.y), (b.left if sign > 0 else b.right, b.y)]
    top, bottom = max(a.top, b.top), min(a.bottom, b.bottom)
    if top < bottom:
        y = (top + bottom) / 2
        return [(a.right, y), (b.left, y)] if sign > 0 else [(a.left, y), (b.right, y)]
    left, right = max(a.left, b.left), min(a.right, b.right)
    if left < right:
        return [((left + right) / 2, leave), ((left + right) / 2, enter)]
    lower = max(leave, enter)
    y = lower - min(LABEL + MARGIN / 2, abs(enter - leave) / 2)
    return [(a.x, leave), (a.x, y), (b.x, y), (b.x, enter)]


def draw(description: dict) -> str:
    """A schematic as SVG."""
    boxes, lanes = place(description)
    paths = [
        route(boxes[start], boxes[end], style.get("route", ""))
        for start, end, style in full(description["arrows"])
    ]
    parts = [part for lane in lanes for part in draw_lane(lane, paths)]
    for path, (_, _, style) in zip(paths, full(description["arrows"]), strict=True):
        parts += draw_arrow(path, style.get("kind", ""), style.get("label", ""))
    parts += [part for box in boxes.values() for part in draw_box(box)]
    key = [kind for kind in KEY if kind in {box.kind for box in boxes.values()}]
    shown = description.get("width", SHOWN)
    height = lanes[-1].bottom + (LABEL + MARGIN if key else MARGIN)
    parts += draw_key(key, lanes[-1].bottom + MARGIN)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
        f'width="{shown}" height="{height * shown / WIDTH:g}" role="img" '
        f'aria-labelledby="title desc" font-family="DejaVu Sans, Verdana, sans-serif" '
        f'font-size="{FONT}" text-anchor="middle">\n'
        f'<title id="title">{escape(description["title"])}</title>\n'
        f'<desc id="desc">{escape(description["alt"])}</desc>\n'
        f"<metadata>{LICENCE}</metadata>\n"
        f"<style>\n{rules('light')}\n@media (prefers-color-scheme: dark) {{\n{rules('dark')}\n}}\n"
        f'</style>\n<rect class="card" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1:g}" '
        'rx="6"/>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def rules(theme: str) -> str:
    """The style sheet of a theme."""
    found = []
    for role, (fill, line) in COLOURS[theme].items():
        name = "text" if role == "text" else "." + role.replace(" ", ".")
        found.append(f"{name} {{ fill: {fill}; stroke: {line} }}")
        if role.startswith("line"):
            found.append(f"{name.replace('line', 'head')} {{ fill: {line} }}")
    return "\n".join(found)


def draw_lane(lane: Box, paths: list[list[tuple[float, float]]]) -> list[str]:
    """A lane, and its label where no arrow comes down through it."""
    left, width = lane.left + PADDING, length(lane.lines[0], bold=True) + LINE * bool(lane.kind)
    for x in sorted(x for path in paths for x in crossings(path, lane.top + LABEL / 2)):
        if left - 4 < x < left + width + 4:
            left = x + PADDING
    parts = [rect(lane, f"lane {lane.kind}", 5)]
    if lane.kind:  # a person: whoever holds what is in this lane
        y = lane.top + 3
        body = f"M{left} {y + 13} a4 5.5 0 0 1 8 0 z"
        head = f'<circle class="head {lane.kind}" cx="{left + 4}" cy="{y + 4}" r="2.8"/>'
        parts += [head, f'<path class="head {lane.kind}" d="{body}"/>']
        left += LINE
    return [*parts, text(left, lane.top + 15, lane.lines[0], "start", bold=True)]


def crossings(path: list[tuple[float, float]], y: float) -> list[float]:
    """Where the vertical pieces of an arrow cross a height."""
    return [
        a for (a, top), (b, end) in pairwise(path) if a == b and min(top, end) < y < max(top, end)
    ]


def draw_arrow(path: list[tuple[float, float]], kind: str, label: str) -> list[str]:
    """A line with a head, and its label beside the longest piece."""
    (before, y), (x, end) = path[-2:]
    dx, dy = (x > before) - (x < before), (end > y) - (end < y)
    wings = [(x - 6 * dx + s * 3.5 * dy, end - 6 * dy + s * 3.5 * dx) for s in (1, -1)]
    shaft = [*path[:-1], (x - 4 * dx, end - 4 * dy)]
    dashed = ' stroke-dasharray="5 2"' if kind == "attack" else ""
    parts = [
        f'<path class="line {kind}" d="M{points(shaft)}" stroke-width="1.5"{dashed}/>',
        f'<path class="head {kind}" d="M{points([(x, end), *wings])} z"/>',
    ]
    if not label:
        return parts
    (x, y), (x2, y2) = max(
        pairwise(path),
        key=lambda piece: abs(piece[0][0] - piece[1][0]) + abs(piece[0][1] - piece[1][1]),
    )
    if x == x2:
        return [*parts, text(x + 6, (y + y2) / 2 + 3.5, label, "start")]
    return [*parts, text((x + x2) / 2, y + LINE - 0.5, label)]


def draw_box(box: Box) -> list[str]:
    """A box: data as sheets, a model rounded, the attacker's act dashed, the defense's double."""
    accent = box.kind if box.kind in ("attack", "defense") else "box"
    parts = []
    if box.kind == "data":
        width, height = box.width - 3, box.height - 3
        parts.append(rect(Box(box.left + 3, box.top, width, height, "", []), "box", 2))
        box = Box(box.left, box.top + 3, width, height, box.kind, box.lines)
    corner = {"model": min(box.height / 2, 16), "data": 2}.get(box.kind, 4)
    line = {"attack": 2, "core": 2, "side": 0.8}.get(box.kind, 1.2)
    dashes = {"attack": "5 2", "side": "2 2"}.get(box.kind, "")
    if box.kind != "note":
        parts.append(rect(box, accent, corner, line, dashes))
    if box.kind == "defense":
        inner = Box(box.left + 2.5, box.top + 2.5, box.width - 5, box.height - 5, "", [])
        parts.append(rect(inner, accent, 2, line))
    first = box.y - LINE * (len(box.lines) - 1) / 2 + 3.5
    return parts + [text(box.x, first + LINE * n, words) for n, words in enumerate(box.lines)]


def draw_key(kinds: list[str], top: float) -> list[str]:
    """What the borders mean, for those that occur."""
    parts, left = [], MARGIN + PADDING
    for kind in kinds:
        parts += draw_box(Box(left, top, 20, LINE, kind, []))
        parts.append(text(left + 25, top + 9.5, KEY[kind], "start"))
        left += WIDTH / 3
    return parts


def rect(box: Box, name: str, corner: float, line: float = 1, dashes: str = "") -> str:
    """A rectangle."""
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<rect class="{name.strip()}" x="{box.left:.4g}" y="{box.top:.4g}" '
        f'width="{box.width:.4g}" height="{box.height:.4g}" rx="{corner:g}" '
        f'stroke-width="{line:g}"{dashed}/>'
    )


def text(x: float, y: float, words: str, anchor: str = "", bold: bool = False) -> str:
    """One line of text."""
    extra = f' text-anchor="{anchor}"' if anchor else ""
    extra += ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.4g}" y="{y:.4g}"{extra}>{escape(words)}</text>'


def points(path: list[tuple[float, float]]) -> str:
    """Points in the language of SVG paths."""
    return " L".join(f"{x:.4g} {y:.4g}" for x, y in path)


def with_alternative(page: str, name: str, alternative: str) -> str:
    """A page with this alternative text wherever it shows the schematic NAME."""
    shown = re.compile(rf"!\[[^]]*\](\((?:\.\./)?figures/{name}\.svg\))")
    return shown.sub(lambda match: f"![{alternative}]{match[1]}", page)


def main() -> None:
    """Write all schematics, and their alternative texts into lessons, README and INSTRUCTOR."""
    every = descriptions()
    for name, description in every.items():
        write(FIGURES / f"{name}.svg", draw(description))
    files = [ROOT / "README.md", ROOT / "INSTRUCTOR.md"]
    pages = {path: path.read_text(encoding="utf-8") for path in files}
    lessons = {path: read(path) for path in lesson_files()}
    for name, description in every.items():
        for path, page in pages.items():
            pages[path] = with_alternative(page, name, description["alt"])
        for nb in lessons.values():
            for cell in nb.cells:
                if cell.cell_type == "markdown":
                    cell.source = with_alternative(cell.source, name, description["alt"])
    for path, page in pages.items():
        write(path, page)
    for path, nb in lessons.items():
        write(path, to_text(nb))


if __name__ == "__main__":
    main()
