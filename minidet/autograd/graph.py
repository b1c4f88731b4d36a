"""The graph behind a Tensor as a picture: an SVG, laid out here, without Graphviz.

The layout is that of Sugiyama, Tagawa and Toda (1981), for graphs that flow in one direction:

1. Layers. An operation lies one layer below the lowest of its inputs (the longest path from the leaves), a leaf just
   above the first operation that uses it.
2. Bends. Where arrows of one box pass a layer they get an empty box in it, so that room is kept for them.
3. Order. In each layer by turns from above and from below, every box goes to the mean place (the barycentre) of its
   neighbours; of all orders seen, the one with the fewest crossings is kept.
4. Places. The boxes move towards the mean x of their neighbours as far as their order and the gaps allow.
"""

import os
from bisect import bisect_right, insort
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from pathlib import Path

from .tensor import Function, Tensor, parent_of

LIMIT = 400  # operations and leaves: more are no picture any more, and the layout takes seconds
SWEEPS = 12  # rounds down and up; the order of graphs of some hundred boxes settles in fewer

HEIGHT, GAP, LAYER_GAP, MARGIN = 38.0, 18.0, 30.0, 16.0  # pixels: of a box, beside it, below it, around the picture
NAME_WIDTH, SHAPE_WIDTH = 7.4, 6.2  # pixels of an average letter at the font sizes below

STYLE = """
text { font-family: Helvetica, Arial, sans-serif; text-anchor: middle; fill: #1c2733 }
.name { font-size: 13px; font-weight: 600 } .shape { font-size: 11px; fill: #5b6875 }
.operation { fill: #eaf1fb; stroke: #5b83bd } .leaf { fill: #fdf3da; stroke: #c9973a }
.output { fill: #dff3e3; stroke: #3f8f55; stroke-width: 2 } .arrow { fill: none; stroke: #8793a0; stroke-width: 1.3 }
"""


@dataclass(eq=False)
class _Box:
    """An operation, a leaf, or, without lines of text, the bend of an arrow. x is its centre."""

    lines: tuple[str, ...] = ()
    kind: str = "bend"
    layer: int = 0
    x: float = 0.0
    above: list["_Box"] = field(default_factory=list)  # one an arrow: what is used twice is here twice
    below: list["_Box"] = field(default_factory=list)

    @property
    def width(self) -> float:
        if not self.lines:
            return 2.0
        *names, shape = self.lines
        text = max(*(NAME_WIDTH * len(name) for name in names), SHAPE_WIDTH * len(shape), 30.0)
        return 1.25 * text + 24 if self.kind == "leaf" else text + 24  # an ellipse has less room at its ends

    @property
    def y(self) -> float:
        return MARGIN + self.layer * (HEIGHT + LAYER_GAP)


def graph_svg(output: Tensor, path: str | Path | None = None, names: Mapping[str, Tensor] | None = None) -> str:
    """Draws the graph behind a Tensor: its operations with the shapes of their results, and the leaves they start from.

    output  the result of operations on Tensors that require grad, before a backward pass frees the graph
    path    where to write the picture, if anywhere; an existing file is replaced
    names   names of leaves, as dict(model.named_parameters()); a leaf without one is shown by its shape

    Constants are not part of the graph and are not drawn. Returns the SVG text. Raises ValueError for a Tensor without
    a graph or with more than LIMIT operations and leaves, RuntimeError for a freed graph.
    """
    if parent_of(output) is None:
        raise ValueError("graph_svg: expected a Tensor that requires grad, got a constant: there is no graph behind it")
    leaf_names = {parent_of(tensor): name for name, tensor in (names or {}).items()}
    nodes = _collect(parent_of(output))
    rows = _layers(nodes, leaf_names, parent_of(output))
    rows = _fewest_crossings(rows)
    _arrange(rows)
    svg = _draw(rows)
    if path is not None:
        _write(Path(path), svg)
    return svg


def _collect(root: Function | Tensor) -> list[Function | Tensor]:
    """All nodes of the graph, each after its inputs: leaves in the order of use, operations in that of creation."""
    seen, stack = {root}, [root]
    while stack:
        node = stack.pop()
        if isinstance(node, Tensor):
            continue
        if node.parents is None:
            raise RuntimeError(f"graph_svg: the graph was freed at {node.name}; draw it before the backward pass")
        fresh = {parent for parent in node.parents if parent is not None} - seen
        seen |= fresh
        stack.extend(fresh)
        if len(seen) > LIMIT:
            raise ValueError(
                f"graph_svg: expected at most {LIMIT} operations and leaves, got more; draw a part of the model, "
                "or a smaller one"
            )
    functions = [node for node in seen if isinstance(node, Function)]
    functions.sort(key=lambda node: node.order, reverse=True)  # the oldest first
    inputs = (parent for function in functions for parent in function.parents)
    leaves = dict.fromkeys(parent for parent in inputs if isinstance(parent, Tensor)) if functions else [root]
    return [*leaves, *functions]


def _layers(nodes: list, leaf_names: dict, root: Function | Tensor) -> list[list[_Box]]:
    """Boxes in rows, linked from each to the next; row 0 is the top."""
    boxes: dict[Function | Tensor, _Box] = {}
    for node in nodes:
        shape = str(node.shape) if node.shape else "scalar"
        if isinstance(node, Tensor):
            lines = (leaf_names[node], shape) if node in leaf_names else ("", shape)
            boxes[node] = _Box(lines, "leaf")
        else:
            inputs = [boxes[parent] for parent in node.parents if parent is not None]
            kind = "output" if node is root else "operation"
            boxes[node] = _Box((node.name, shape), kind, layer=1 + max(box.layer for box in inputs))
            for box in inputs:
                box.below.append(boxes[node])
    for box in boxes.values():
        if box.kind == "leaf" and box.below:
            box.layer = min(user.layer for user in box.below) - 1

    rows: list[list[_Box]] = [[] for _ in range(1 + max(box.layer for box in boxes.values()))]
    for box in boxes.values():
        rows[box.layer].append(box)
    for box in boxes.values():
        users, box.below = sorted(box.below, key=lambda user: user.layer), []
        trunk = [box]  # one bend a layer, shared by all arrows that pass there
        for user in users:
            for layer in range(box.layer + len(trunk), user.layer):
                trunk.append(_Box(layer=layer))
                rows[layer].append(trunk[-1])
                _link(trunk[-2], trunk[-1])
            _link(trunk[user.layer - box.layer - 1], user)
    return rows


def _link(upper: _Box, lower: _Box) -> None:
    upper.below.append(lower)
    lower.above.append(upper)


def _fewest_crossings(rows: list[list[_Box]]) -> list[list[_Box]]:
    """The rows in the best order that the sweeps found."""
    best, fewest = rows, _crossings(rows)
    for sweep in range(2 * SWEEPS):
        rows = [list(row) for row in rows]
        downwards = sweep % 2 == 0
        for row, fixed in (
            zip(rows[1:], rows, strict=False) if downwards else zip(rows[-2::-1], rows[::-1], strict=False)
        ):
            place = {box: position for position, box in enumerate(fixed)}
            now = {box: position for position, box in enumerate(row)}

            def barycentre(box: _Box, place: dict = place, now: dict = now, downwards: bool = downwards) -> float:
                neighbours = box.above if downwards else box.below
                return sum(place[other] for other in neighbours) / len(neighbours) if neighbours else now[box]

            row.sort(key=barycentre)
        crossings = _crossings(rows)
        if crossings < fewest:
            best, fewest = rows, crossings
    return best


def _crossings(rows: list[list[_Box]]) -> int:
    """Pairs of arrows that cross: their upper ends lie in one order, their lower ends in the other."""
    total = 0
    for upper, lower in pairwise(rows):
        place = {box: position for position, box in enumerate(lower)}
        ends_before: list[int] = []  # sorted: the lower ends of all arrows that start further left
        for box in upper:
            ends = [place[other] for other in box.below]
            total += sum(len(ends_before) - bisect_right(ends_before, end) for end in ends)
            for end in ends:
                insort(ends_before, end)
    return total


def _arrange(rows: list[list[_Box]]) -> None:
    """Sets x: each box near the mean of its neighbours, by turns of those above, those below, and both."""
    for row in rows:
        _place(row, [0.0] * len(row))
    for sweep in range(6 * SWEEPS):
        turn = sweep % 3
        for row in rows[::-1] if turn == 1 else rows:
            wanted = []
            for box in row:
                neighbours = (box.above, box.below, box.above + box.below)[turn] or box.above + box.below
                wanted.append(sum(other.x for other in neighbours) / len(neighbours) if neighbours else box.x)
            _place(row, wanted)
    left = min(box.x - box.width / 2 for row in rows for box in row) - MARGIN
    for row in rows:
        for box in row:
            box.x -= left


def _place(row: list[_Box], wanted: list[float]) -> None:
    """The centres nearest to the wanted ones, by least squares, that keep the order and the gaps.

    Without its distance from the first box, each centre must be no less than the one before: an isotonic regression,
    solved by pooling neighbours in the wrong order into their mean. Bends weigh more, so that long arrows run straight.
    """
    distances = [0.0]
    for left, right in pairwise(row):
        distances.append(distances[-1] + (left.width + right.width) / 2 + GAP)
    pools: list[tuple[float, float, int]] = []  # each: mean, weight, number of boxes
    for box, target, distance in zip(row, wanted, distances, strict=True):
        mean, weight, count = target - distance, 1.0 if box.lines else 8.0, 1
        while pools and pools[-1][0] > mean:
            before, its_weight, its_count = pools.pop()
            mean = (before * its_weight + mean * weight) / (its_weight + weight)
            weight, count = its_weight + weight, its_count + count
        pools.append((mean, weight, count))
    means = [mean for mean, _, count in pools for _ in range(count)]
    for box, mean, distance in zip(row, means, distances, strict=True):
        box.x = mean + distance


def _draw(rows: list[list[_Box]]) -> str:
    boxes = [box for row in rows for box in row]
    width = max(box.x + box.width / 2 for box in boxes) + MARGIN
    height = boxes[-1].y + HEIGHT + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.1f} {height:.1f}">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0.8 L7.5 4 L0 7.2 z" fill="#8793a0"/></marker></defs>',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for box in boxes:
        if box.lines:
            parts += [_arrow(box, position) for position in range(len(box.above))]
    parts += [_shape(box) for box in boxes if box.lines]
    return "\n".join([*parts, "</svg>", ""])


def _arrow(box: _Box, position: int) -> str:
    """The curve into a box from its input at a position, up through the bends to where it starts."""
    sources = sorted(range(len(box.above)), key=lambda i: box.above[i].x)  # arrive side by side, in the order of x
    spread = min(14.0, 0.6 * box.width / len(sources))
    x = box.x + (sources.index(position) - (len(sources) - 1) / 2) * spread
    points = [(x, box.y)]
    upper = box.above[position]
    while not upper.lines:  # bend
        points += [(upper.x, upper.y + HEIGHT), (upper.x, upper.y)]
        upper = upper.above[0]
    points.append((upper.x, upper.y + HEIGHT))
    (x, y), *rest = points[::-1]
    steps = [f"M{x:.1f} {y:.1f}"]
    for next_x, next_y in rest:
        middle = (y + next_y) / 2
        steps.append(f"C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {next_y:.1f}")
        x, y = next_x, next_y
    return f'<path class="arrow" d="{" ".join(steps)}" marker-end="url(#tip)"/>'


def _shape(box: _Box) -> str:
    name, shape = box.lines
    left, middle = box.x - box.width / 2, box.y + HEIGHT / 2
    if box.kind == "leaf":
        outline = (
            f'<ellipse class="leaf" cx="{box.x:.1f}" cy="{middle:.1f}" rx="{box.width / 2:.1f}" ry="{HEIGHT / 2}"/>'
        )
    else:
        outline = (
            f'<rect class="{box.kind}" x="{left:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" '
            f'height="{HEIGHT}" rx="8"/>'
        )
    shape_text = f'<text class="shape" x="{box.x:.1f}" y="{middle + (13 if name else 4):.1f}">{escape(shape)}</text>'
    name_text = f'<text class="name" x="{box.x:.1f}" y="{middle - 2:.1f}">{escape(name)}</text>' if name else ""
    return f"<g>{outline}{name_text}{shape_text}</g>"


def _write(path: Path, text: str) -> None:
    """Writes the file whole or not at all: a temporary one beside it takes its place."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
