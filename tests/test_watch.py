"""The watch hook: free when nobody listens, complete when somebody does."""

from contextlib import ExitStack

import numpy as np
import pytest

from minidet import watch


def test_nothing_is_computed_while_nobody_listens() -> None:
    watch.emit("costly", lambda: pytest.fail("computed although nobody listens"))
    assert not watch.listening()


def test_a_listener_gets_name_value_shape_and_pictures() -> None:
    heard = []
    boxes = np.zeros((3, 4))
    with watch.listen(heard.append), watch.pictures(["a.png", "b.png"]):
        assert watch.listening()
        watch.emit("boxes", boxes)
        watch.emit("count", lambda: 3)
    (first, second) = heard
    assert first.name == "boxes"
    assert first.value is boxes
    assert first.shape == (3, 4)
    assert first.pictures == ("a.png", "b.png")
    assert second.value == 3
    assert second.shape is None
    assert str(first) == "boxes: (3, 4) float64 of a.png, b.png"


def test_a_listener_is_gone_after_its_block_even_after_an_error() -> None:
    heard = []
    with pytest.raises(ZeroDivisionError), watch.listen(heard.append), watch.pictures(["a.png"]):
        raise ZeroDivisionError
    watch.emit("boxes", 1)
    assert heard == []
    with watch.listen(heard.append):
        watch.emit("boxes", 1)
    assert heard[0].pictures == ()


def test_every_listener_hears_everything() -> None:
    first, second = [], []
    with watch.listen(first.append), watch.listen(second.append):
        watch.emit("x", 1)
    assert [event.value for event in first + second] == [1, 1]


def test_a_listener_that_leaves_while_it_is_told_keeps_nobody_from_hearing() -> None:
    heard = []
    with ExitStack() as stack:
        first = ExitStack()
        first.enter_context(watch.listen(lambda event: first.close()))
        stack.enter_context(watch.listen(heard.append))
        watch.emit("logits", 1)
    assert [event.name for event in heard] == ["logits"]
