"""Initial weights that need no oracle."""

import numpy as np
import pytest

import minidet
from minidet import Tensor
from minidet.nn import init


def test_large_weights_are_drawn_in_pieces_alike_on_any_number_of_cores(monkeypatch):
    """VGG's fully connected layers: in float32 and on all cores, or they would take ten seconds."""
    monkeypatch.setattr(init, "PIECE", 1000)
    found = []
    for workers in (1, 3):
        pool = init.ThreadPoolExecutor
        with monkeypatch.context() as patch:
            patch.setattr(init, "ThreadPoolExecutor", lambda pool=pool, workers=workers: pool(workers))
            minidet.manual_seed(1)
            x = Tensor(np.zeros((50, 47), np.float32))
            found.append((init.normal_(x, 2, 3).data.copy(), init.uniform_(x, -1, 5).data.copy()))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
    normal, uniform = found[0]
    assert normal.mean() == pytest.approx(2, abs=0.2)
    assert normal.std() == pytest.approx(3, rel=0.05)
    assert -1 <= uniform.min() < -0.9
    assert 4.9 < uniform.max() < 5
    assert len(np.unique(normal)) > 2300  # of 2350: no piece is drawn twice


def test_large_weights_of_any_dtype_and_layout_are_drawn(monkeypatch):
    monkeypatch.setattr(init, "PIECE", 1000)
    for data in (np.zeros((50, 47)), np.zeros((47, 50), np.float32).T):
        x = init.normal_(Tensor(data), 2, 3, np.random.default_rng(0))
        assert np.shares_memory(x.data, data)
        assert data.std() == pytest.approx(3, rel=0.05)


def test_small_weights_are_as_they_always_were():
    """Whoever trains with a seed gets the same network again."""
    x = init.normal_(Tensor(np.zeros(1 << 10, np.float32)), 2, 3, np.random.default_rng(0))
    expected = np.random.default_rng(0).normal(2, 3, 1 << 10).astype(np.float32)
    np.testing.assert_array_equal(x.data, expected)
