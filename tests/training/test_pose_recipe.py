"""The recipe of DeepPose: crops, augmentation, several people an image, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest

from minidet.array_file import write_arrays
from minidet.backbones import TinyBackbone
from minidet.data.dataset import Dataset, Sample
from minidet.data.formats.record import Annotations, Record
from minidet.data.images import write_image
from minidet.data.joints import LSP_JOINTS, LSP_SWAP, MPII_JOINTS
from minidet.data.transforms import RandomFlip, resize, translate
from minidet.drawing import error_legend, side_legend
from minidet.models.classifier import Classifier
from minidet.models.pose import DeepPose
from minidet.random import manual_seed
from minidet.training import Training, load_system, try_settings
from minidet.training.recipes.pose import MARGIN, augmentation, crop_person, person_region, predict

SYSTEM = load_system("pose")
SMALL = ["size=64", "crop_size=32", "input_size=32", "refiner_size=8", "batch_size=4", "images=4", "warmup=1"]


def settings(*overrides: str) -> dict:
    return SYSTEM.configure([*SMALL, *overrides])


def person(corner: tuple[float, float], side: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A box and 14 joints in it."""
    rng = np.random.default_rng(seed)
    joints = np.concatenate([rng.uniform(0, side - 1, (14, 2)) + corner, np.full((14, 1), 2)], axis=1)
    return np.array([*corner, corner[0] + side, corner[1] + side]), joints


def sample(*people: tuple[np.ndarray, np.ndarray], size: int = 64, swap=None) -> Sample:
    rng = np.random.default_rng(1)
    boxes = np.array([box for box, _ in people]).reshape(-1, 4)
    keypoints = np.array([joints for _, joints in people]).reshape(-1, 14, 3)
    image = rng.integers(0, 256, (size, size, 3), np.uint8)
    return Sample(image, boxes, np.ones(len(boxes), np.int64), keypoints=keypoints, name="a.png", flip_swap=swap)


def dots(keypoints: np.ndarray, size: int = 64) -> np.ndarray:
    """A black picture in which joint k is a blurred dot of brightness 100 + 10 k, around its place."""
    rows, columns = np.mgrid[:size, :size]
    picture = np.zeros((size, size))
    for k, (x, y, v) in enumerate(keypoints):
        if v:
            picture = np.maximum(picture, (100 + 10 * k) * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 4))
    return np.repeat(picture.astype(np.uint8)[..., None], 3, axis=2)


# ---- crops


def test_a_persons_region_is_its_box_made_square_with_a_margin() -> None:
    assert person_region([10, 20, 20, 60]).tolist() == [15, 40, (1 + 2 * MARGIN) * 40]


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [5, 5, 9, 5], [9, 5, 5, 9], [np.nan, 0, 1, 1], [0, 0, 0, 0]])
def test_a_person_box_of_no_size_is_refused(box) -> None:
    with pytest.raises(ValueError, match="expected a person's box x1 < x2, y1 < y2, got"):
        person_region(np.array(box, float))
    with pytest.raises(ValueError, match="leave the person out, or take the whole picture's"):
        crop_person(sample((np.array(box, float), np.zeros((14, 3)))), 0, 32)


@pytest.mark.parametrize("region", [(32.0, 30.0, 40.0), (31.3, 28.9, 57.7), (20.0, 50.0, 64.0), (30.2, 33.7, 30.5)])
def test_joints_move_along_with_the_crop(region) -> None:
    """Each dot of the cropped picture is where its joint says, also over the picture's border."""
    joints = np.zeros((14, 3))
    joints[0], joints[5], joints[9] = (26, 40, 2), (38, 28, 1), (25, 28, 2)
    whole = Sample(dots(joints), np.array([[0.0, 0, 64, 64]]), np.ones(1, np.int64), keypoints=joints[None])
    cropped = crop_person(whole, 0, 48, np.array(region))
    assert cropped.image.shape == (48, 48, 3)
    assert (cropped.keypoints[0, [1, 2, 3]] == 0).all()  # not labelled, as before
    picture = cropped.image[..., 0].astype(float)
    for k in (0, 5, 9):
        x, y, v = cropped.keypoints[0, k]
        assert v == joints[k, 2]
        rows, columns = np.mgrid[:48, :48]
        near = (abs(columns - x) < 5 * 48 / region[2]) & (abs(rows - y) < 5 * 48 / region[2])
        weight = np.where(near, picture, 0)
        centroid = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
        np.testing.assert_allclose(centroid, (x, y), atol=0.25)


def test_what_lies_outside_the_picture_has_its_mean_colour_and_joints_there_stay_labelled() -> None:
    one = sample(person((0, 0), 20))
    one.image[...] = (10, 200, 30)
    one.keypoints[0, 4, :2] = (-3, 5)
    cropped = crop_person(one, 0, 24)  # the region is x -2 to 22
    assert (cropped.image == (10, 200, 30)).all()
    assert cropped.boxes.tolist() == [[2, 2, 22, 22]]
    assert cropped.keypoints[0, 4].tolist() == pytest.approx([-3 + 0.5 + 2 - 0.5, 5 + 2, 2])
    far = crop_person(one, 0, 24, np.array([900.0, 900.0, 24.0]))
    assert (far.image == (10, 200, 30)).all()


def test_a_large_picture_is_averaged_and_not_sampled() -> None:
    """Stripes of one pixel become grey, where sampling would show some of them."""
    one = sample(person((0, 0), 512), size=512)
    one.image[...] = np.where(np.arange(512) % 2, 255, 0).astype(np.uint8)[None, :, None]
    inside = crop_person(one, 0, 32, np.array([256.0, 256.0, 500.0])).image[4:-4, 4:-4]
    assert inside.std() < 8
    assert inside.mean() == pytest.approx(127.5, abs=3)


# ---- augmentation


RIGHT_ANKLE, LEFT_ANKLE, NECK = 0, 5, 12


def two_discs(swap) -> Sample:
    """A person with a red disc at the right ankle, in the picture's left half, and a green one at the left ankle."""
    joints = np.zeros((14, 3))
    joints[RIGHT_ANKLE], joints[LEFT_ANKLE], joints[NECK] = (22, 40, 2), (42, 28, 2), (30, 18, 1)
    image = np.zeros((64, 64, 3), np.uint8)
    rows, columns = np.mgrid[:64, :64]
    for joint, channel in ((RIGHT_ANKLE, 0), (LEFT_ANKLE, 1)):
        x, y, _ = joints[joint]
        image[(columns - x) ** 2 + (rows - y) ** 2 <= 16, channel] = 255
    box = np.array([[12.0, 12.0, 52.0, 52.0]])
    return Sample(image, box, np.ones(1, np.int64), keypoints=joints[None], flip_swap=swap)


@pytest.mark.parametrize("swap", [None, LSP_SWAP])
def test_augmentation_moves_and_mirrors_and_swaps_sides_where_the_data_say_so(swap) -> None:
    transform, seen, places = augmentation(settings()), set(), []
    for seed in range(16):
        result = transform(two_discs(swap), np.random.default_rng(seed))
        red, green = (np.argwhere(result.image[..., channel] > 128).mean(axis=0)[::-1] for channel in (0, 1))
        mirrored = bool(red[0] > green[0])
        right, left = result.keypoints[0, RIGHT_ANKLE, :2], result.keypoints[0, LEFT_ANKLE, :2]
        # Where colours tell the sides apart red stays the right ankle; else a mirrored right ankle is a left one.
        expected = (green, red) if mirrored and swap else (red, green)
        np.testing.assert_allclose((right, left), expected, atol=0.3)
        assert result.keypoints[0, :, 2].tolist() == [2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0]
        seen.add(mirrored)
        places.append(tuple((red + green) / 2))
    assert seen == {False, True}
    assert np.std(places, axis=0).min() > 0.5
    assert np.ptp(places, axis=0)[1] < 2 * 0.05 * 32 + 0.6  # up to a twentieth of the side, up and down


def test_without_augmentation_every_epoch_sees_the_same() -> None:
    transform = augmentation(settings("augment=false"))
    first, second = (transform(two_discs(LSP_SWAP), np.random.default_rng(seed)) for seed in (1, 2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.keypoints, crop_person(two_discs(None), 0, 32).keypoints)


def test_of_several_people_one_is_taken_each_time_and_never_one_without_joints() -> None:
    box, joints = person((4, 4), 20)
    nobody = (np.array([30.0, 30, 60, 60]), np.zeros((14, 3)))
    group = sample((box, joints), nobody, (box + 30, np.add(joints, (30, 30, 0))))
    transform = augmentation(settings("augment=false"))
    taken = {transform(group, np.random.default_rng(seed)).image.tobytes() for seed in range(20)}
    assert taken == {crop_person(group, k, 32).image.tobytes() for k in (0, 2)}


def test_samples_keep_the_swap_of_their_data_set_through_all_transforms(tmp_path) -> None:
    write_image(tmp_path / "a.png", np.zeros((64, 64, 3), np.uint8))
    box, joints = person((12, 12), 40)
    record = Record(tmp_path / "a.png", "a.png", (64, 64), box[None], np.ones(1, np.int64), keypoints=joints[None])
    record.iscrowd = record.difficult = np.zeros(1, bool)
    record.areas = np.ones(1)
    annotations = Annotations([record], ("__background__", "person"), joint_names=LSP_JOINTS)
    one = Dataset(annotations, flip_swap=LSP_SWAP)[0]
    assert one.flip_swap == LSP_SWAP
    rng = np.random.default_rng(0)
    for changed in (resize(one, 32, 32), translate(one, 3, 4), RandomFlip(1.0, one.flip_swap)(one, rng)):
        assert changed.flip_swap == LSP_SWAP


# ---- predictions in the picture's own pixels


class Middle:
    """A model that finds all joints at (8, 20) in crops of 32 pixels, in both stages."""

    image_size, input_size, device, joints = 32, 16, "cpu", LSP_JOINTS

    def eval(self) -> None:
        self.batches = []

    def __call__(self, images) -> list[dict]:
        self.batches.append(len(images.data))
        keypoints = np.tile(np.float32([8, 20, 2]), (1, 14, 1))
        return [
            {"keypoints": keypoints.copy(), "stage_keypoints": np.tile(keypoints[..., :2], (2, 1, 1))}
            for _ in images.data
        ]


def test_every_person_is_looked_at_alone_and_found_in_the_pictures_pixels() -> None:
    side = 20 * (1 + 2 * MARGIN)  # 24: one pixel of the crop is 0.75
    group = sample(person((10, 20), 20), person((30, 4), 20))
    model = Middle()
    found, nobody, single = predict(model, [group, sample(), sample(person((10, 20), 20))], batch_size=3)
    assert model.batches == [3, 1]
    for k, corner in enumerate([(20 - side / 2, 30 - side / 2), (40 - side / 2, 14 - side / 2)]):
        place = np.array(corner) + np.array([8.5, 20.5]) * side / 32 - 0.5
        np.testing.assert_allclose(found["keypoints"][k], np.tile([*place, 2], (14, 1)))
        np.testing.assert_allclose(found["stage_keypoints"][:, k], np.tile(place, (2, 14, 1)))
    np.testing.assert_array_equal(single["keypoints"][0], found["keypoints"][0])
    np.testing.assert_array_equal(found["boxes"], group.boxes)
    assert found["labels"].tolist() == [1, 1]
    assert "scores" not in found  # nobody measured how sure it is
    # A picture without boxes is looked at as a whole, as one person's.
    assert nobody["boxes"].tolist() == [[0, 0, 64, 64]]
    assert nobody["regions"].tolist() == [[32, 32, 64 * (1 + 2 * MARGIN)]]


def test_pictures_say_errors_where_the_truth_is_known_and_else_sides() -> None:
    group = sample(person((10, 20), 20), person((30, 4), 20))
    for one, legend in ((group, error_legend), (sample(), side_legend)):
        picture = SYSTEM.draw([one], predict(Middle(), [one]), ("", "person"))
        expected = legend(picture.shape[1])
        np.testing.assert_array_equal(picture[-len(expected) :], expected)


def records_of(*samples: Sample, names=LSP_JOINTS) -> SimpleNamespace:
    """What check and evaluate need of a data set."""
    made = [
        SimpleNamespace(path=f"{k}.png", boxes=s.boxes, keypoints=s.keypoints, head_boxes=None)
        for k, s in enumerate(samples)
    ]
    return SimpleNamespace(records=made, joint_names=names, samples=samples)


class Listed(list):
    """Samples as a data set."""

    def __init__(self, samples) -> None:
        super().__init__(samples)
        self.records = records_of(*samples).records


def test_errors_are_measured_in_the_networks_pixels_and_pictures_without_people_do_not_count() -> None:
    group = sample(person((10, 20), 20), person((30, 4), 20))
    predictions = predict(Middle(), [group])
    group.keypoints[:] = predictions[0]["keypoints"]
    group.keypoints[0, :, 0] += 3.0
    metrics, found = SYSTEM.evaluate(Middle(), Listed([sample(), group]), 8)
    assert len(found) == 2
    assert metrics["mean_error"] == pytest.approx(1.5 * 16 / 24)
    nobody, found = SYSTEM.evaluate(Middle(), Listed([sample()]), 8)
    assert np.isnan(list(nobody.values())).all()
    assert len(found) == 1


def test_heads_are_measured_by_their_boxes_where_the_data_have_them() -> None:
    group = sample(*(person((10, 20), 20) for _ in range(3)))
    group.keypoints[:] = predict(Middle(), [group])[0]["keypoints"]  # neck and head top are one place
    group.keypoints[:2, :, 0] += 2.9
    data = Listed([group])
    metrics, _ = SYSTEM.evaluate(Middle(), data, 8)
    assert np.isnan(metrics["pckh_50"])
    # Diagonals of 10 and 5, of which 0.6 is the head and half of that is right; the third person's head has no box.
    data.records[0].head_boxes = np.array([[0, 0, 6, 8], [0, 0, 3, 4], [np.nan] * 4])
    metrics, _ = SYSTEM.evaluate(Middle(), data, 8)
    assert metrics["pckh_50"] == 0.5


# ---- what cannot be learned


def test_data_that_the_system_cannot_learn_are_refused_with_the_files_name() -> None:
    one, empty = sample(person((10, 20), 20)), sample()
    SYSTEM.check(records_of(one), settings())
    without = sample(person((10, 20), 20))
    without.keypoints[...] = 0
    for bad, number in ((empty, 0), (without, 1)):
        with pytest.raises(
            ValueError, match=rf"1\.png: expected at least one person with a labelled joint, got {number} people"
        ):
            SYSTEM.check(records_of(one, bad), settings())
    with pytest.raises(ValueError, match=r"0\.png: expected the 16 joints of mpii \(right ankle, .* got right ankle"):
        SYSTEM.check(records_of(one), settings("joints=mpii"))
    one.keypoints = None
    with pytest.raises(ValueError, match=r"0\.png: expected the 14 joints of lsp .* got no joints; other joints"):
        SYSTEM.check(records_of(one, names=None), settings())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("joints=coco", "joints: expected lsp or mpii, got 'coco'"),
        ("pose_loss=foo", "expected loss among l2, l1, smooth_l1"),
        ("crop_size=16", "expected image_size to be input_size, 32, or more, got 16"),
        ("stages=0", "stages: expected 1 or more, got 0"),
        ("input_size=20", "multiple of the backbone's stride 16"),
    ],
)
def test_settings_that_cannot_be_trained_are_refused_by_trying_them(override, message) -> None:
    with pytest.raises(ValueError, match=message):
        try_settings(SYSTEM, settings(override))


def test_the_settings_can_be_tried_on_pictures_without_joints() -> None:
    try_settings(SYSTEM, settings())
    try_settings(SYSTEM, settings("joints=mpii", "stages=1"))


def test_a_training_may_start_from_a_classifiers_backbone_and_its_result_needs_it_no_more(tmp_path) -> None:
    classifier = Classifier(TinyBackbone(), 3)
    for name, array in classifier.state_dict().items():
        array[...] = len(name)
    path = tmp_path / "best.safetensors"
    data = [sample(person((10, 20), 30, seed)) for seed in range(4)]
    for arrays in (classifier.state_dict(), classifier.backbone.state_dict()):  # a whole run's, or the backbone's own
        write_arrays(path, arrays, {})
        model = Training(SYSTEM, settings(f"backbone={path}"), ("", "person"), data, 0).model
        for name, array in model.backbone.state_dict().items():
            np.testing.assert_array_equal(array, classifier.backbone.state_dict()[name])
    write_arrays(path, {"stem.0.weight": np.zeros((1, 3, 3, 3), np.float32)}, {})
    with pytest.raises(ValueError, match=r"backbone: .*best\.safetensors: load_state_dict: .*missing keys"):
        try_settings(SYSTEM, settings(f"backbone={path}"))
    path.unlink()
    with pytest.raises(ValueError, match=r"best\.safetensors"):
        try_settings(SYSTEM, settings(f"backbone={path}"))
    SYSTEM.build(("", "person"), settings(f"backbone={path}"), manual_seed(0))  # as `minidet eval` does


def test_a_backbone_of_other_channels_is_refused_from_its_stem_on(tmp_path) -> None:
    path = tmp_path / "best.safetensors"
    narrow = Classifier(TinyBackbone((16, 32, 64, 64)), 6).state_dict()
    write_arrays(path, dict(reversed(narrow.items())), {})
    message = (
        r"backbone: .*best\.safetensors: .* does not fit this TinyBackbone: wrong shapes: stem\.0\.weight: expected "
        r"\(32, 3, 3, 3\), got \(16, 3, 3, 3\), .*; expected a TinyBackbone of channels 32, 64, 128, 128, as `minidet "
        "train classifier` trains; after `minidet train classifier --out RUN` it is --set backbone=RUN/best.safetensors"
    )
    with pytest.raises(ValueError, match=message):
        try_settings(SYSTEM, settings(f"backbone={path}"))
    with pytest.raises(
        ValueError, match=r"expected a file, got the folder .*; a run's weights are .*best\.safetensors$"
    ):
        try_settings(SYSTEM, settings(f"backbone={tmp_path}"))


def test_a_cascade_for_mpiis_joints_has_sixteen() -> None:
    model = SYSTEM.build(("__background__", "person"), settings("joints=mpii"), manual_seed(0))
    assert isinstance(model, DeepPose)
    assert model.joints == MPII_JOINTS


def test_what_stage_2_was_trained_for_survives_a_checkpoint() -> None:
    """The Gaussian of its training boxes is part of the state, so a resumed run draws the same boxes."""
    config = settings("epochs=4")
    data = [sample(person((10, 20), 30, seed), size=64) for seed in range(8)]
    runs = [Training(SYSTEM, config, ("__background__", "person"), data, seed=0) for _ in range(2)]
    runs[0].begin_epoch()
    for batch in runs[0].loader:
        runs[0].step(batch)
    arrays, saved = runs[0].state()
    arrays = {key: np.array(array) for key, array in arrays.items()}
    expected = [runs[0].step(batch) for batch in runs[0].loader]
    runs[1].restore(arrays, saved)
    runs[1].begin_epoch()
    assert [runs[1].step(batch) for batch in runs[1].loader] == expected
