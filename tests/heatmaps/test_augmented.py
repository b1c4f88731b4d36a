"""Augmented Grad-CAM: the copies and their inverse, the problem that is solved, and what is refused."""

import numpy as np
import pytest
from scipy import ndimage

import minidet_kernels as kernels
from minidet import Tensor, nn
from minidet.heatmaps import GradCAM, resize_map
from minidet.heatmaps.augmented import (
    COMBINE,
    AugmentedCAM,
    augment,
    average_map,
    maps_of_copies,
    max_map,
    moved_back,
    random_augmentations,
    single_map,
    super_resolution,
)
from minidet.random import manual_seed
from minidet_kernels import emulator
from minidet_kernels.resample import invert_affine, rotation_then_translation
from minidet_kernels.solvers import primal_dual, subgradient_descent

SIZE = (48, 48)


def smooth_image(rng: np.random.Generator, channels: int = 3, size: tuple[int, int] = SIZE) -> np.ndarray:
    return ndimage.gaussian_filter(rng.random((channels, *size)), (0, 3, 3)).astype(np.float64)


def disc(size: tuple[int, int] = SIZE, centre: tuple[float, float] = (20, 27), radius: float = 9) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    return ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2).astype(np.float64)


# ------------------------------------------------------------------------------------------------- the copies


def test_the_first_copy_is_the_image_and_the_others_are_within_the_limits() -> None:
    matrices = random_augmentations(200, SIZE, max_angle=0.5, max_shift=6)
    np.testing.assert_array_equal(matrices[0], [[1, 0, 0], [0, 1, 0]])
    angles = np.arctan2(matrices[:, 0, 1], matrices[:, 0, 0])
    assert 0.45 < np.abs(angles).max() <= 0.5
    middle = np.array([(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2, 1])
    # The picture's middle goes to middle + shift, so middle + shift must look at the middle.
    shifts = (np.linalg.inv(matrices[:, :, :2]) @ (middle[:2, None] - matrices[:, :, 2:]))[..., 0] - middle[:2]
    assert 5.5 < np.abs(shifts).max() <= 6 + 1e-9
    np.testing.assert_array_equal(matrices, random_augmentations(200, SIZE, max_angle=0.5, max_shift=6))
    np.testing.assert_array_equal(matrices[:10], random_augmentations(10, SIZE, max_angle=0.5, max_shift=6))


def test_shifts_grow_with_the_image() -> None:
    large = random_augmentations(500, (224, 224), max_angle=0)
    assert 28 < np.abs(large[:, :, 2]).max() <= 30  # pixels, as in the paper


def test_a_copy_is_rotated_and_then_shifted_and_its_margin_has_the_mean_color() -> None:
    image = np.zeros((2, 5, 5), np.float32)
    image[0, 2, 4] = 1  # right of the middle
    image[1] = 0.25
    matrices = rotation_then_translation(np.array([0, np.pi / 2]), np.array([[0, 0], [-1, 0]]), (5, 5))
    copies = augment(image, matrices)
    np.testing.assert_array_equal(copies[0], image)
    # A quarter turn from x towards y puts it below the middle, the shift one further to the left.
    expected = np.full((5, 5), 1 / 25)
    expected[:, :4] = 0
    expected[4, 1] = 1
    np.testing.assert_allclose(copies[1, 0], expected, atol=1e-6)
    np.testing.assert_allclose(copies[1, 1], 0.25, atol=1e-7)


def test_there_and_back_is_the_image_where_the_copy_saw_it() -> None:
    rng = np.random.default_rng(0)
    image = smooth_image(rng, 1)
    matrices = random_augmentations(30, SIZE)
    there = kernels.affine_warp(image[None], matrices)
    back = kernels.affine_warp(there, invert_affine(matrices))
    seen = kernels.affine_warp(kernels.affine_warp(np.ones((1, 1, *SIZE)), matrices), invert_affine(matrices))
    valid = seen > 1 - 1e-12
    assert valid[0].all()
    assert 0.4 < valid.mean() < 0.95
    # Linear interpolation is off by at most 1/8 of the second differences, twice in each of two directions.
    second = max(np.abs(np.diff(image, 2, axis=axis)).max() for axis in (1, 2))
    error = np.abs(back - image[None])[valid].max()
    assert 1e-6 < error < second / 2
    whole = rotation_then_translation(np.pi / 2 * np.arange(4), np.array([[3, -2], [0, 1], [-4, 4], [0, 0]]), SIZE)
    back = kernels.affine_warp(kernels.affine_warp(image[None], whole), invert_affine(whole))
    seen = kernels.affine_warp(kernels.affine_warp(np.ones((1, 1, *SIZE)), whole), invert_affine(whole)) > 1 - 1e-9
    np.testing.assert_allclose(back[seen], np.broadcast_to(image, back.shape)[seen], atol=1e-9)


@pytest.mark.parametrize("low", [7, 12])
def test_the_operator_and_its_adjoint(low: int) -> None:
    rng = np.random.default_rng(1)
    matrices = random_augmentations(20, SIZE, seed=3)
    energy = super_resolution(rng.random((20, low, low)), matrices, SIZE)
    h, y = rng.standard_normal((1, 1, *SIZE)), rng.standard_normal((20, 1, low, low))
    left = np.vdot(energy.operator.forward(h), y)
    assert abs(left - np.vdot(h, energy.operator.adjoint(y))) < 1e-12 * np.abs(y).sum()
    # D A_l by SciPy: the place in the image that each coarse pixel's middle looks at.
    step = SIZE[0] / low
    rows, columns = np.meshgrid(*2 * [(np.arange(low) + 0.5) * step - 0.5], indexing="ij")
    for matrix, got in zip(matrices, energy.operator.forward(h)[:, 0], strict=True):
        u, v = np.einsum("ab,bij->aij", matrix, np.stack([columns, rows, np.ones_like(rows)]))
        expected = ndimage.map_coordinates(h[0, 0], [v, u], order=1, mode="grid-constant")
        np.testing.assert_allclose(got, expected, atol=1e-12)


# ------------------------------------------------------------------------------------------------- the solution


def coarse_eye(low: int = 8):
    """A heat-map method that sees the red channel, in cells: the mean of each."""

    def method(images: Tensor, label: int) -> np.ndarray:
        n, _, h, w = images.shape
        return images.data[:, 0].reshape(n, low, h // low, low, w // low).mean(axis=(2, 4)).astype(np.float32)

    return method


def picture_of(red: np.ndarray) -> np.ndarray:
    """(3, H, W) float32 with no mean, so that the margin of a copy is 0."""
    image = np.zeros((3, *red.shape), np.float32)
    image[0] = red
    return image


def test_the_maps_are_divided_by_their_own_maximum_and_empty_ones_are_left_out() -> None:
    values = [np.zeros((2, 2)), np.full((2, 2), 2.0), -np.ones((2, 2)), np.diag([1.0, 4.0])]
    calls = []

    def method(images: Tensor, label: int) -> np.ndarray:
        calls.append((len(images), label))
        return np.array([values.pop(0) for _ in range(len(images))])

    matrices = random_augmentations(4, SIZE)
    maps = maps_of_copies(method, picture_of(disc()), matrices, 5, batch_size=3)
    assert calls == [(3, 5), (1, 5)]
    nothing = np.zeros((2, 2))
    np.testing.assert_array_equal(maps, [nothing, np.ones((2, 2)), nothing, np.diag([0.25, 1.0])])
    average = AugmentedCAM(method, combine="average").combined(maps, matrices, SIZE)
    np.testing.assert_array_equal(average, average_map(maps[[1, 3]], matrices[[1, 3]], SIZE))
    assert not AugmentedCAM(method, combine="single").combined(maps, matrices, SIZE).any()


def test_a_map_that_is_not_finite_is_refused() -> None:
    matrices = random_augmentations(1, SIZE)
    with pytest.raises(ValueError, match="expected finite heat maps, got NaN or infinity for image 0"):
        maps_of_copies(lambda images, label: np.full((len(images), 2, 2), np.nan), picture_of(disc()), matrices, 2)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_many_coarse_maps_make_a_sharper_one() -> None:
    truth = disc()
    image = picture_of(truth)
    image[0] -= 1e-3  # so that the mean is not what makes the maps
    matrices = random_augmentations(100, SIZE)
    maps = maps_of_copies(coarse_eye(), image, matrices, 0)
    energy = super_resolution(maps, matrices, SIZE)
    certified = primal_dual(energy, tolerance=1e-3)
    descended = subgradient_descent(energy)
    assert descended.energy <= 1.02 * certified.lower_bound
    sharp, single = correlation(certified.h[0, 0], truth), correlation(single_map(maps, SIZE), truth)
    averaged = correlation(average_map(maps, matrices, SIZE), truth)
    assert single < sharp - 0.02
    assert averaged < sharp


def test_the_baselines_by_hand() -> None:
    maps = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])  # of an image of 2 x 4; the second was moved by 2 to the right
    matrices = rotation_then_translation(np.zeros(2), np.array([[0, 0], [2, 0]]), (2, 4))
    back, seen = moved_back(maps, matrices, (2, 4))
    ramp = [1, 0.75, 0.25, 0]  # [1, 0] enlarged
    np.testing.assert_allclose(back[0], [ramp, ramp])
    np.testing.assert_allclose(back[1], [[0.75, 1, 0, 0]] * 2, atol=1e-12)
    np.testing.assert_array_equal(seen, [np.ones((2, 4)), [[1, 1, 0, 0]] * 2])
    np.testing.assert_allclose(single_map(maps, (2, 4)), [ramp, ramp])
    np.testing.assert_allclose(average_map(maps, matrices, (2, 4)), [[0.875, 0.875, 0.25, 0]] * 2, atol=1e-12)
    np.testing.assert_allclose(max_map(maps, matrices, (2, 4)), [[1, 1, 0.25, 0]] * 2)


# ------------------------------------------------------------------------------------------------- of a network


def small_network() -> nn.Module:
    manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU()
    )
    return nn.Sequential(backbone, nn.GlobalAvgPool2d(), nn.Linear(8, 4))


@pytest.mark.parametrize("combine", COMBINE)
def test_it_is_a_method_as_the_others_are(combine: str) -> None:
    images = np.random.default_rng(4).random((2, 3, 32, 32), dtype=np.float32)
    method = GradCAM(small_network())
    sharp = AugmentedCAM(method, copies=12, combine=combine, batch_size=5)
    maps = sharp(images)
    assert (maps.shape, maps.dtype) == ((2, 32, 32), np.float32)
    predicted = method.model(Tensor(images)).numpy().argmax(axis=1)
    np.testing.assert_array_equal(maps, sharp(Tensor(images), predicted))
    np.testing.assert_array_equal(maps[1:], sharp(images[1:], int(predicted[1])))
    assert maps.max() > 0.15  # Adam's 200 steps of 1e-3 cannot pass 0.2
    # The same, step by step.
    moved = random_augmentations(12, (32, 32))
    coarse = maps_of_copies(method, images[0], moved, int(predicted[0]))
    if combine == "primal_dual":
        energy = super_resolution(coarse, moved, (32, 32))
        assert energy(maps[:1, None]) <= 1.001 * subgradient_descent(energy).energy
    if combine == "single":
        np.testing.assert_allclose(maps[0], resize_map(method(images[:1]) / method(images[:1]).max(), (32, 32))[0])


def test_one_copy_is_the_map_itself_made_smooth() -> None:
    images = np.random.default_rng(4).random((1, 3, 32, 32), dtype=np.float32)
    method = GradCAM(small_network())
    single = AugmentedCAM(method, copies=1, combine="average")(images)
    np.testing.assert_allclose(single, resize_map(method(images) / method(images).max(), (32, 32)), atol=1e-6)


@pytest.mark.parametrize("combine", COMBINE)
def test_a_network_that_sees_nothing_gives_a_map_of_zeros(combine: str) -> None:
    network = small_network()
    for parameter in network.parameters():
        parameter.data[...] = 0
    images = np.random.default_rng(4).random((1, 3, 32, 32), dtype=np.float32)
    assert not AugmentedCAM(GradCAM(network), copies=3, combine=combine)(images).any()


@pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not()))
def test_on_the_gpu_it_is_the_cpus_map() -> None:
    images = np.random.default_rng(4).random((1, 3, 16, 16), dtype=np.float32)
    expected = AugmentedCAM(GradCAM(small_network()), copies=4)(images)
    with emulator.emulated():
        got = AugmentedCAM(GradCAM(small_network().to("cuda")), copies=4)(images)
    np.testing.assert_allclose(got, expected, atol=1e-4)


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"copies": 0}, "expected copies as an integer of 1 or more, got 0"),
        ({"copies": 2.5}, "expected copies as an integer of 1 or more, got 2.5"),
        ({"batch_size": 0}, "expected batch_size as an integer of 1 or more, got 0"),
        ({"iterations": 0}, "expected iterations as an integer of 1 or more, got 0"),
        ({"tv_weight": -1.0}, "expected tv_weight of 0 or more, and finite, got -1.0"),
        ({"l2_weight": float("nan")}, "expected l2_weight of 0 or more, and finite, got nan"),
        ({"l2_weight": float("inf")}, "expected l2_weight of 0 or more, and finite, got inf"),
        ({"combine": "median"}, "expected combine among subgradient, adam, primal_dual, single, average, max"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AugmentedCAM(coarse_eye(), **options)


@pytest.mark.parametrize("options", [{"max_shift": 20}, {"max_shift": -1}, {"max_angle": -0.1}, {"max_angle": np.nan}])
def test_an_image_smaller_than_the_shift_is_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="max_shift from 0 to less than the image's 20 x 30 pixels, got"):
        random_augmentations(3, (20, 30), **options)
