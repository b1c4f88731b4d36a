"""Connected components: drawn by hand, against SciPy and scikit-image; and the errors of the contract."""

from __future__ import annotations

import numpy as np
import pytest

import minidet_kernels as mk
from tests.kernels.cases.components import random_mask


@pytest.fixture(params=["reference", "cpu"], autouse=True)
def version(request):
    if mk.available()[request.param] is not None:
        pytest.skip(mk.available()[request.param])
    with mk.use(request.param):
        yield request.param


def drawn(text: str) -> np.ndarray:
    return np.array([[0 if c == "." else int(c) for c in row] for row in text.split()])


@pytest.mark.parametrize(
    ("connectivity", "picture"),
    [
        (4, "1.2.33  1.2...  1.222.  .....4  55.444"),
        (8, "1.2.33  1.2...  1.222.  .....2  44.222"),
    ],
)
def test_numbers_follow_the_first_pixels(connectivity: int, picture: str) -> None:
    expected = drawn(picture)
    labels, counts = mk.connected_components(expected[None] > 0, connectivity)
    np.testing.assert_array_equal(labels[0], expected)
    assert counts.tolist() == [expected.max()]
    assert labels.dtype == np.int32
    assert counts.dtype == np.int64


@pytest.mark.parametrize(
    ("connectivity", "picture"),
    [
        (4, "1.1.1.1  1.1.1.1  1111111"),  # a comb: four labels turn out to be one in the last row
        (4, "11111  1...1  1.2.1  1...1  11111"),  # a hole with something in it
        (4, "11111  ....1  11111  1....  11111"),  # a snake
        (4, "..1  .11  11."),  # a stair
        (8, "1...1  .1.1.  ..1..  .1.1.  1...1"),
        (4, "1.2  .3.  4.5"),
        (8, "..1  .1.  1.."),
        (8, "1..2  1..2  1..2"),
    ],
)
def test_shapes_that_join_late(connectivity: int, picture: str) -> None:
    expected = drawn(picture)
    labels, _ = mk.connected_components(expected[None] > 0, connectivity)
    np.testing.assert_array_equal(labels[0], expected)


def test_every_image_counts_for_itself() -> None:
    masks = np.stack([drawn("1.1  ...") > 0, drawn("...  ...") > 0, drawn("111  111") > 0])
    labels, counts = mk.connected_components(masks)
    assert counts.tolist() == [2, 0, 1]
    assert labels.max(axis=(1, 2)).tolist() == [2, 0, 1]


@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 3), (2, 3, 0), (1, 1, 1)])
def test_nothing_to_label(shape: tuple[int, ...]) -> None:
    labels, counts = mk.connected_components(np.zeros(shape, bool))
    assert labels.shape == shape
    assert counts.tolist() == [0] * shape[0]


@pytest.mark.parametrize("connectivity", [4, 8])
def test_scipy_and_scikit_image_find_the_same_components(connectivity: int) -> None:
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is an oracle")
    measure = pytest.importorskip("skimage.measure", reason="scikit-image is an oracle; pip install '.[test]'")
    rng = np.random.default_rng(connectivity)
    structure = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    for _ in range(100):
        mask = random_mask(rng, tuple(rng.integers(1, 40, 2)))
        labels, counts = mk.connected_components(mask[None], connectivity)
        # Both number by first pixels too, as it happens: were that to change, the partition would still be tested.
        for expected in (ndimage.label(mask, structure)[0], measure.label(mask, connectivity=1 + (connectivity == 8))):
            assert counts[0] == expected.max()
            pairs = np.unique(np.stack([labels[0].ravel(), expected.ravel()]), axis=1)
            assert pairs.shape[1] == len(np.unique(labels)), "labels are not in one-to-one correspondence"
        firsts = [np.flatnonzero(labels[0].ravel() == label)[0] for label in range(1, counts[0] + 1)]
        assert firsts == sorted(firsts)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: mk.connected_components(np.zeros((3, 3), bool)),
            ValueError,
            r"masks.*\(3, 3\); a batch axis is missing",
        ),
        (lambda: mk.connected_components(np.zeros((1, 3, 3))), TypeError, r"masks \(1, 3, 3\) of bool, got float64"),
        (lambda: mk.connected_components([[[True]]]), TypeError, "masks to be an array, got list"),
        (lambda: mk.connected_components(np.zeros((1, 3, 3), bool), 6), ValueError, "connectivity 4 or 8, got 6"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
