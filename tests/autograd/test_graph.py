"""The picture of a graph, read back as XML: what is in it, how it lies, and what cannot be drawn."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidet.functional as F
from minidet import Tensor, tensor
from minidet.autograd import graph, graph_svg

SVG = "{http://www.w3.org/2000/svg}"


def leaf(*shape):
    return Tensor(np.ones(shape), requires_grad=True)


class Picture:
    """The boxes (kind, texts, left, top, right, bottom) and arrows ((x, y) of start and end) of an SVG."""

    def __init__(self, svg):
        self.root = ElementTree.fromstring(svg)
        self.boxes = [self.box(group) for group in self.root.iter(f"{SVG}g")]
        paths = [path.get("d") for path in self.root.iter(f"{SVG}path") if path.get("class") == "arrow"]
        numbers = [[float(number) for number in re.findall(r"-?[\d.]+", path)] for path in paths]
        self.arrows = [(tuple(n[:2]), tuple(n[-2:])) for n in numbers]

    @staticmethod
    def box(group):
        texts = tuple(text.text for text in group.iter(f"{SVG}text"))
        outline = group[0]
        if outline.tag == f"{SVG}ellipse":
            cx, cy, rx, ry = (float(outline.get(name)) for name in ("cx", "cy", "rx", "ry"))
            return "leaf", texts, cx - rx, cy - ry, cx + rx, cy + ry
        x, y, width, height = (float(outline.get(name)) for name in ("x", "y", "width", "height"))
        return outline.get("class"), texts, x, y, x + width, y + height

    def touching(self, point):
        """The texts of the box whose edge the point lies on."""
        x, y = point
        found = [
            texts for _, texts, left, top, right, bottom in self.boxes if left <= x <= right and y in (top, bottom)
        ]
        assert len(found) == 1
        return found[0]

    def links(self):
        return sorted((self.touching(start), self.touching(end)) for start, end in self.arrows)


def test_a_small_graph_has_its_boxes_and_arrows():
    a, b = leaf(2, 3), leaf(3)
    picture = Picture(graph_svg((a * b + 1).sum(), names={"weight": a, "bias": b}))
    assert sorted((kind, texts) for kind, texts, *_ in picture.boxes) == [
        ("leaf", ("bias", "(3,)")),
        ("leaf", ("weight", "(2, 3)")),
        ("operation", ("Add", "(2, 3)")),
        ("operation", ("Multiply", "(2, 3)")),
        ("output", ("Sum", "scalar")),
    ]
    assert picture.links() == [
        (("Add", "(2, 3)"), ("Sum", "scalar")),
        (("Multiply", "(2, 3)"), ("Add", "(2, 3)")),
        (("bias", "(3,)"), ("Multiply", "(2, 3)")),
        (("weight", "(2, 3)"), ("Multiply", "(2, 3)")),
    ]


def test_an_input_used_twice_has_two_arrows_that_end_apart():
    x = leaf(2)
    picture = Picture(graph_svg(x * x))
    ends = [end for _, end in picture.arrows]
    assert len(ends) == len(set(ends)) == 2


def test_a_leaf_without_a_name_is_shown_by_its_shape():
    assert ("leaf", ("(4, 5)",)) in [box[:2] for box in Picture(graph_svg(leaf(4, 5).sum())).boxes]


def test_a_leaf_lies_just_above_its_first_use_and_a_long_arrow_bends_around_boxes():
    x, late = leaf(2), leaf(3, 2)
    early = F.exp(x)
    y = early
    for _ in range(4):
        y = F.sin(y)
    picture = Picture(graph_svg(y * early * late, names={"late": late}))
    tops = {texts[0]: top for _, texts, _, top, _, _ in picture.boxes}
    rows = sorted({top for _, _, _, top, _, _ in picture.boxes})
    assert rows.index(tops["late"]) == len(rows) - 2
    assert ((("Exp", "(2,)"), ("Multiply", "(2,)"))) in picture.links()


def test_names_are_escaped():
    x = leaf(2)
    name = """<script>&"'</script>"""
    svg = graph_svg(x.sum(), names={name: x})
    assert "<script>" not in svg
    assert (name, "(2,)") in [texts for _, texts, *_ in Picture(svg).boxes]


def test_a_name_that_no_leaf_of_the_graph_bears_is_no_matter():
    x = leaf(2)
    assert "other" not in graph_svg(x.sum(), names={"other": leaf(3), "constant": tensor([1.0])})


def test_a_leaf_alone_is_a_picture():
    assert len(Picture(graph_svg(leaf(2))).boxes) == 1


def test_two_chains_that_can_be_drawn_without_crossings_are():
    a, b = leaf(2), leaf(2)
    mixed = [F.exp(a), F.sin(b), F.log(a), F.cos(b), F.sqrt(a)]  # made in turns
    total = ((mixed[0] + mixed[2]) + mixed[4]) * (mixed[1] + mixed[3])
    rows = graph._fewest_crossings(graph._layers(graph._collect(total.node), {}, total.node))
    assert graph._crossings(rows) == 0


def test_crossings_are_counted():
    def row(n):
        return [graph._Box(("", "")) for _ in range(n)]

    upper, lower = row(3), row(3)
    for i, j in ((0, 2), (1, 1), (2, 0), (0, 0)):  # 02-11, 02-20, 11-20: 00 crosses none but 02 meets it at its start
        graph._link(upper[i], lower[j])
    assert graph._crossings([upper, lower]) == 3


@settings(max_examples=25, deadline=None)
@given(picks=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=30))
def test_any_graph_flows_downwards_and_no_boxes_overlap(picks):
    pool = [leaf(2), leaf(1)]
    for i, j in picks:
        pool.append(pool[i % len(pool)] + pool[j % len(pool)])
    output = pool[0] + pool[1]
    for x in pool[2:]:
        output = output + x
    svg = graph_svg(output)
    picture = Picture(svg)
    width, height = float(picture.root.get("width")), float(picture.root.get("height"))
    assert len(picture.boxes) == 2 + len(picks) + 1 + len(picks)
    assert len(picture.arrows) == 2 * (1 + 2 * len(picks))
    for (_, start), (_, end) in picture.arrows:
        assert start < end
    for i, (_, _, left, top, right, bottom) in enumerate(picture.boxes):
        assert 0 <= left < right <= width + 1
        assert 0 <= top < bottom <= height + 1
        for _, _, other_left, other_top, other_right, _ in picture.boxes[:i]:
            assert other_top != top or other_right < left or right < other_left
    assert svg == graph_svg(output)


def test_a_freed_graph_a_constant_and_too_large_a_graph_are_refused():
    x = leaf(2)
    y = x.sum()
    y.backward()
    with pytest.raises(RuntimeError, match="the graph was freed at Sum; draw it before the backward pass"):
        graph_svg(y)
    with pytest.raises(ValueError, match="expected a Tensor that requires grad, got a constant"):
        graph_svg(tensor([1.0]))
    y = x
    for _ in range(graph.LIMIT + 1):
        y = y + 1
    with pytest.raises(ValueError, match=f"expected at most {graph.LIMIT} operations and leaves"):
        graph_svg(y)


def test_drawing_leaves_the_graph_and_its_gradients_as_they_were():
    x = leaf(2)
    y = (x * x).sum()
    graph_svg(y)
    y.backward()
    np.testing.assert_array_equal(x.grad.data, [2, 2])


def test_the_file_is_written_whole_and_nothing_else(tmp_path):
    path = tmp_path / "graph.svg"
    path.write_text("old")
    svg = graph_svg(leaf(2).sum(), path)
    assert path.read_text(encoding="utf-8") == svg
    assert [file.name for file in tmp_path.iterdir()] == ["graph.svg"]


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        graph_svg(leaf(2).sum(), tmp_path / "nowhere" / "graph.svg")
