"""Colour spaces: known colours, colorsys, scikit-image, and that every channel fills [0, 1] and no more."""

import colorsys

import numpy as np
import pytest

from minidet.proposals.color_spaces import SPACES, to_color_space

EVERY_17TH = np.stack(np.meshgrid(*[np.arange(0, 256, 17)] * 3, indexing="ij"), axis=-1).reshape(64, 64, 3)
COLORS = EVERY_17TH.astype(np.uint8)


def converted(color: tuple[int, int, int], space: str) -> np.ndarray:
    return to_color_space(np.array([[color]], np.uint8), space)[:, 0, 0]


@pytest.mark.parametrize(
    ("color", "expected"),
    [
        ((255, 0, 0), (0, 1, 1)),
        ((0, 255, 0), (1 / 3, 1, 1)),
        ((0, 0, 255), (2 / 3, 1, 1)),
        ((255, 0, 255), (5 / 6, 1, 1)),
        ((102, 51, 51), (0, 0.5, 0.4)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 255, 255), (0, 0, 1)),
    ],
)
def test_hsv_by_hand(color, expected) -> None:
    np.testing.assert_allclose(converted(color, "HSV"), expected, atol=1e-6)
    np.testing.assert_allclose(converted(color, "H"), expected[:1], atol=1e-6)


def test_hsv_of_all_colors_is_pythons() -> None:
    expected = [colorsys.rgb_to_hsv(*(color / 255)) for color in COLORS.reshape(-1, 3)]
    result = to_color_space(COLORS, "HSV").reshape(3, -1).T
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_lab_of_all_colors_is_scikit_images() -> None:
    color = pytest.importorskip("skimage.color", reason="scikit-image is an oracle; pip install '.[test]'")
    lightness, a, b = color.rgb2lab(COLORS, illuminant="D65").transpose(2, 0, 1)
    expected = [lightness / 100, (a + 128) / 255, (b + 128) / 255]
    np.testing.assert_allclose(to_color_space(COLORS, "Lab"), expected, atol=1e-3)  # they round the matrix elsewhere


def test_grey_has_no_color_in_lab() -> None:
    """a = b = 0 lies at 128 / 255; black has L = 0, white 100."""
    for grey, lightness in ((0, 0), (119, 0.5), (255, 1)):
        np.testing.assert_allclose(converted((grey,) * 3, "Lab"), (lightness, 128 / 255, 128 / 255), atol=2e-3)


@pytest.mark.parametrize(
    ("color", "expected"),
    [
        ((255, 0, 0), (1, 0, 0.299)),
        ((50, 100, 50), (0.25, 0.5, (0.299 * 50 + 0.587 * 100 + 0.114 * 50) / 255)),
        ((0, 0, 0), (1 / 3, 1 / 3, 0)),
        ((200, 200, 200), (1 / 3, 1 / 3, 200 / 255)),
    ],
)
def test_normalised_red_and_green_by_hand(color, expected) -> None:
    np.testing.assert_allclose(converted(color, "rgI"), expected, atol=1e-6)
    np.testing.assert_allclose(converted(color, "I"), expected[2:], atol=1e-6)


@pytest.mark.parametrize("space", SPACES)
def test_every_channel_lies_in_0_to_1_and_needs_most_of_it(space: str) -> None:
    """A channel left at 0 to 255, 0 to 360 or -128 to 127 would leave the histograms' range; one divided twice would
    stay in their first bin. a and b of sRGB need 72 % and 79 % of theirs, hue never reaches 1, which would be red."""
    everything = to_color_space(COLORS, space)
    assert everything.shape == (1 if space in "HI" else 3, 64, 64)
    assert everything.dtype == np.float32
    assert everything.min() >= 0
    assert everything.max() <= 1
    assert (np.ptp(everything, axis=(1, 2)) > 0.7).all()


@pytest.mark.parametrize(
    ("image", "space", "error", "message"),
    [
        (COLORS, "RGB", ValueError, "one of HSV, Lab, rgI, H, I, got 'RGB'"),
        (COLORS / 255, "HSV", TypeError, "uint8, 0 to 255, got float64"),
        (COLORS[..., 0], "HSV", ValueError, r"\(H, W, 3\), RGB, got \(64, 64\)"),
        (COLORS.transpose(2, 0, 1), "HSV", ValueError, r"channels-first, use .transpose\(1, 2, 0\)"),
    ],
)
def test_other_images_are_refused(image, space, error, message) -> None:
    with pytest.raises(error, match=message):
        to_color_space(image, space)
