"""Every number of miniscene's specification, measured on many scenes."""

from functools import cache

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import points_in_poly, regionprops

from minidet.data.figures import ANGLE_LIMITS, make_joints, paint_layers
from minidet.data.joints import LSP_JOINTS, LSP_SWAP
from minidet.data.miniscene import CLASSES, SCENES, make_scene
from minidet.data.shapes import CROSS_ARM, RING_HOLE, shape_coverage


@cache
def scenes(task: str, count: int = 150, level: str = "textured", **options):
    return [
        make_scene(np.random.default_rng((11, i)), **(SCENES[task] | {"level": level} | options)) for i in range(count)
    ]


def test_the_classes_are_the_six_of_the_design():
    assert CLASSES == ("circle", "square", "triangle", "star", "ring", "cross")


@pytest.mark.parametrize("task", SCENES)
def test_a_box_is_the_tight_box_of_the_visible_mask(task):
    for scene in scenes(task):
        height, width, channels = scene.image.shape
        assert (height, width, channels, scene.image.dtype) == (SCENES[task]["size"],) * 2 + (3, np.uint8)
        assert scene.masks.shape == (len(scene.boxes), height, width)
        everything = zip(
            np.concatenate([scene.masks, scene.person_masks]),
            np.concatenate([scene.boxes, scene.person_boxes]),
            strict=True,
        )
        for mask, box in everything:
            top, left, bottom, right = regionprops(mask.astype(np.uint8))[0].bbox
            assert box.tolist() == [left, top, right, bottom]


@pytest.mark.parametrize("task", SCENES)
def test_no_pixel_belongs_to_two_things(task):
    for scene in scenes(task):
        assert np.concatenate([scene.masks, scene.person_masks]).sum(axis=0).max(initial=0) <= 1


def test_detection_scenes_hold_one_to_five_objects_of_every_class_and_a_tenth_are_empty():
    many = scenes("detection", 500)
    objects = [int((~scene.iscrowd).sum()) for scene in many]
    assert max(objects) == 5
    assert 0.06 < np.mean([len(scene.boxes) == 0 for scene in many]) < 0.14
    labels = np.concatenate([scene.labels for scene in many])
    assert sorted(set(labels.tolist())) == [1, 2, 3, 4, 5, 6]
    assert np.bincount(labels)[1:].min() > 0.7 * len(labels) / 6


def test_scenes_of_people_hold_two_to_four_of_a_third_to_two_thirds_of_the_height():
    many = scenes("people", 60)
    assert sorted({len(scene.keypoints) for scene in many}) == [2, 3, 4]
    heights = np.concatenate([scene.person_boxes[:, 3] - scene.person_boxes[:, 1] for scene in many])
    assert 0.3 * 128 < np.median(heights) < 0.6 * 128
    for scene in many:
        assert scene.person_visible.min() >= 0.6


def test_localization_scenes_hold_exactly_one_whole_object_of_16_to_48_pixels():
    many = scenes("localization", 300)
    sides = []
    for scene in many:
        assert scene.image.shape == (64, 64, 3)
        assert len(scene.boxes) == 1
        assert not scene.iscrowd.any()
        assert not scene.truncated.any()
        assert scene.visible.tolist() == [1.0]
        sides.append((scene.boxes[0, 2:] - scene.boxes[0, :2]).max())
    assert 16 <= min(sides) < 20
    assert 44 < max(sides) <= 48


def test_detection_sides_are_10_to_40_pixels():
    sides = [
        max(box[2:] - box[:2])
        for scene in scenes("detection", 500)
        for box, visible, crowd in zip(scene.boxes, scene.visible, scene.iscrowd, strict=True)
        if visible == 1 and not crowd
    ]
    assert 10 <= min(sides) < 12
    assert 38 < max(sides) <= 40


def test_every_thing_is_at_least_60_percent_visible_and_some_are_hidden_and_some_cut():
    many = scenes("detection", 500)
    visible = np.concatenate([scene.visible for scene in many])
    truncated = np.concatenate([scene.truncated for scene in many])
    assert visible.min() >= 0.6
    assert visible.min() < 0.65  # the limit is used
    assert 0.03 < truncated.mean() < 0.2
    assert ((visible < 1) & ~truncated).mean() > 0.05
    assert (visible[truncated] < 1).all()
    for scene in many:
        # Whatever is cut touches the border.
        for box, cut in zip(scene.boxes, scene.truncated, strict=True):
            assert not cut or box[:2].min() == 0 or box[2:].max() == 128


def test_the_visible_fraction_of_a_circle_is_that_of_its_whole_disc():
    checked = 0
    for scene in scenes("detection", 500):
        for mask, label, visible in zip(scene.masks, scene.labels, scene.visible, strict=True):
            if CLASSES[label - 1] == "circle" and 0.6 <= visible < 0.95 and not scene.iscrowd.any():
                rows, columns = np.nonzero(mask)
                area = mask.sum() / visible
                diameter = np.sqrt(4 * area / np.pi)
                assert 9.5 < diameter < 40.5
                # No two pixels of a disc are farther apart than its diameter, and some of those left nearly are.
                reach = np.hypot(np.ptp(rows) + 1, np.ptp(columns) + 1)
                assert np.ptp(rows) + 1 <= diameter + 1.5
                assert reach > diameter
                checked += 1
    assert checked > 10


def test_crowds_exist_and_mark_several_objects():
    crowds = [(scene, i) for scene in scenes("detection", 500) for i in np.flatnonzero(scene.iscrowd)]
    assert 0.01 < len(crowds) / 500 < 0.1
    pieces = [ndimage.label(scene.masks[i])[1] for scene, i in crowds]
    assert np.mean(np.array(pieces) > 1) > 0.5


def surroundings(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    window = np.zeros_like(mask)
    window[max(rows[0] - 3, 0) : rows[-1] + 4, max(columns[0] - 3, 0) : columns[-1] + 4] = True
    return window & ~mask


@pytest.mark.parametrize(("level", "tolerance"), [("flat", 1.5), ("textured", 4.0)])
def test_an_objects_colour_is_45_to_150_away_from_the_background_around_it(level, tolerance):
    distances = []
    for scene in scenes("localization", 200, level):
        mask = scene.masks[0]
        inner = ndimage.binary_erosion(mask)
        outer = surroundings(ndimage.binary_dilation(mask))
        if inner.sum() < 20:
            continue
        difference = scene.image[inner].mean(axis=0) - scene.image[outer].mean(axis=0)
        distances.append(np.linalg.norm(difference))
        assert np.abs(scene.image[inner].mean(axis=0) - scene.colors[0]).max() < tolerance
    assert 45 - tolerance <= min(distances) < 55
    assert 130 < max(distances) <= 150 + tolerance


def test_the_noise_has_a_sigma_of_3_to_9():
    sigmas = []
    for scene in scenes("localization", 200):
        inner = ndimage.binary_erosion(scene.masks[0], iterations=2)
        if inner.sum() > 200:
            sigmas.append(scene.image[inner].astype(float).std(axis=0).mean())
    assert 2.9 < min(sigmas) < 4
    assert 8 < max(sigmas) < 9.3


def test_colour_says_nothing_about_the_class():
    many = scenes("localization", 300) + scenes("detection", 500)
    labels, colors = np.concatenate([s.labels for s in many]), np.concatenate([s.colors for s in many])
    whole = colors.mean(axis=0)
    for label in range(1, 7):
        mine = colors[labels == label]
        error = mine.std(axis=0) / np.sqrt(len(mine))
        assert (np.abs(mine.mean(axis=0) - whole) < 4 * error).all()


def test_a_flat_scene_has_one_background_colour_and_a_textured_one_slow_waves():
    for scene in scenes("detection", 30, "flat"):
        outside = ~ndimage.binary_dilation(scene.masks.any(axis=0), iterations=2)
        assert len(np.unique(scene.image[outside], axis=0)) == 1
    for scene in scenes("detection", 30):
        smooth = ndimage.gaussian_filter(scene.image.astype(float), (6, 6, 0))
        outside = ~ndimage.binary_dilation(scene.masks.any(axis=0), iterations=12)
        assert smooth[outside].std(axis=0).max() > 2


def test_equal_seeds_give_equal_scenes_and_others_do_not():
    first, second, other = (make_scene(np.random.default_rng(seed)) for seed in (3, 3, 4))
    for name, value in vars(first).items():
        np.testing.assert_array_equal(value, getattr(second, name))
    assert not np.array_equal(first.image, other.image)


def test_unknown_levels_and_too_large_objects_are_refused():
    with pytest.raises(ValueError, match=r"level flat or textured, got 'hard'"):
        make_scene(np.random.default_rng(0), level="hard")
    with pytest.raises(ValueError, match=r"at most the picture's 32 pixels"):
        make_scene(np.random.default_rng(0), size=32)


# ---- shapes ------------------------------------------------------------------------------------------------------


def corners_of(name: str) -> np.ndarray:
    """Outlines by hand, in units where the outermost corner is at distance 1; y points down."""
    if name == "square":
        return np.sqrt(0.5) * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    if name == "triangle":
        return np.array([(0, -1), (np.sqrt(3) / 2, 0.5), (-np.sqrt(3) / 2, 0.5)])
    if name == "star":  # ten corners; the inner ones of a pentagram lie at cos 72 / cos 36
        radius = np.where(np.arange(10) % 2 == 0, 1, np.cos(np.deg2rad(72)) / np.cos(np.deg2rad(36)))
        angle = np.deg2rad(-90 + 36 * np.arange(10))
        return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    a = CROSS_ARM
    cross = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]
    return np.array(cross) / np.hypot(1, a)


@pytest.mark.parametrize("name", ["square", "triangle", "star", "cross"])
@pytest.mark.parametrize("angle", [0.0, 0.4, 2.0])
def test_coverage_is_the_share_of_16_points_inside_the_outline(name, angle):
    side, center = 21.3, (17.2, 15.9)
    top, left, fractions = shape_coverage(name, side, angle, center)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = corners_of(name) @ rotation.T
    extent = np.ptp(corners, axis=0)
    corners = (corners - (corners.min(axis=0) + corners.max(axis=0)) / 2) * side / extent.max() + center
    height, width = fractions.shape
    for row in range(height):
        for column in range(width):
            offsets = (np.arange(4) + 0.5) / 4
            points = [(left + column + u, top + row + v) for u in offsets for v in offsets]
            share = points_in_poly(points, corners).mean()
            assert abs(share - fractions[row, column]) <= 1 / 16 + 1e-6  # a point may lie on the outline itself


@pytest.mark.parametrize(("name", "area"), [("circle", np.pi / 4), ("ring", np.pi / 4 * (1 - RING_HOLE**2))])
def test_round_shapes_have_the_area_of_geometry(name, area):
    top, left, fractions = shape_coverage(name, 30.0, 0.0, (20.0, 20.5))
    assert abs(fractions.sum() - area * 900) < 0.005 * area * 900
    assert (left, left + fractions.shape[1]) == (5, 35)
    assert (top, top + fractions.shape[0]) == (5, 36)  # 5.5 to 35.5
    assert len(np.unique(fractions)) > 8  # soft edges


# ---- stick figures -----------------------------------------------------------------------------------------------


def angle_between(a: np.ndarray, b: np.ndarray) -> float:
    """Degrees from a to b, in -180..180."""
    return np.rad2deg(np.arctan2(a[0] * b[1] - a[1] * b[0], a @ b))


def test_the_limbs_keep_their_angle_limits_and_lengths():
    joint = {name: k for k, name in enumerate(LSP_JOINTS)}
    bends = {"elbow": [], "knee": [], "shoulder": []}
    for seed in range(300):
        joints = make_joints(np.random.default_rng(seed), 100.0, facing=1)
        pelvis = (joints[joint["right hip"]] + joints[joint["left hip"]]) / 2
        down = pelvis - joints[joint["neck"]]
        assert abs(angle_between(np.array([0, 1.0]), down)) <= ANGLE_LIMITS["lean"][1] + 1e-6
        assert abs(angle_between(-down, joints[joint["head top"]] - joints[joint["neck"]])) <= 20 + 1e-6
        for side, sign in (("right", 1), ("left", -1)):
            ankle, knee, hip, wrist, elbow, shoulder = (
                joints[joint[f"{side} {name}"]] for name in ("ankle", "knee", "hip", "wrist", "elbow", "shoulder")
            )
            # Seen from the front, outwards is anticlockwise on the picture's right, where the left side is.
            raised = sign * angle_between(down, elbow - shoulder)
            bends["shoulder"].append(raised)
            bends["elbow"].append(sign * angle_between(elbow - shoulder, wrist - elbow))
            bends["knee"].append(sign * angle_between(knee - hip, ankle - knee))
            assert -10 - 1e-6 <= sign * angle_between(down, knee - hip) <= 60 + 1e-6
            np.testing.assert_allclose(np.linalg.norm(knee - hip), 25, atol=1e-9)
            np.testing.assert_allclose(np.linalg.norm(wrist - elbow), 16, atol=1e-9)
    for name, (low, high) in {"elbow": (-130, 130), "knee": (-75, 0), "shoulder": (-10, 160)}.items():
        assert low - 1e-6 <= min(bends[name]) < low + 10
        assert high - 10 < max(bends[name]) <= high + 1e-6


def test_the_swap_of_joints_exchanges_right_and_left():
    for k, name in enumerate(LSP_JOINTS):
        mirrored = {"right": "left", "left": "right"}
        words = name.split()
        assert LSP_JOINTS[LSP_SWAP[k]] == " ".join([mirrored.get(words[0], words[0]), *words[1:]])


def test_the_right_side_is_orange_and_the_left_side_blue():
    checked = 0
    for scene in scenes("pose"):
        smooth = ndimage.uniform_filter(scene.image.astype(float), (3, 3, 1))
        for name, (x, y, visibility) in zip(LSP_JOINTS, scene.keypoints[0], strict=True):
            if (
                visibility == 2
                and name.split()[-1] in ("ankle", "knee", "wrist", "elbow")
                and 1 <= x < 126
                and 1 <= y < 126
            ):
                red, _, blue = smooth[round(y), round(x)]
                assert (red > blue) == name.startswith("right")
                checked += 1
    assert checked > 800


def test_joints_are_visible_on_the_person_hidden_behind_something_or_not_labelled_outside():
    counts = np.zeros(3, int)
    for scene in scenes("pose"):
        (joints,), (mask,) = scene.keypoints, scene.person_masks
        for x, y, visibility in joints:
            counts[int(visibility)] += 1
            if visibility == 0:
                assert (x, y) == (0, 0)
                continue
            assert -0.5 <= x < 127.5
            assert -0.5 <= y < 127.5
            on_person = mask[round(y), round(x)]
            on_object = scene.masks[:, round(y), round(x)].any()
            assert not (on_object and visibility == 2)
            assert on_person or on_object
    assert counts[1] > 0.02 * counts.sum()
    assert counts[2] > 0.7 * counts.sum()
    assert 0 < counts[0] < 0.1 * counts.sum()
    assert all(scene.person_visible[0] >= 0.6 for scene in scenes("pose"))


def test_a_joint_is_hidden_by_a_nearer_limb_and_not_by_one_that_is_farther():
    joints = make_joints(np.random.default_rng(0), 100.0, facing=1) + 200
    # The legs cross so that the ankles lie on the other leg's thigh. The left leg is painted after the right one.
    joints[[0, 1, 2]] = (210, 230), (190, 260), (190, 200)
    joints[[5, 4, 3]] = (190, 230), (210, 260), (210, 200)
    _, hidden = paint_layers(joints, 100.0, facing=1)
    assert hidden[0]
    assert not hidden[[1, 4, 5]].any()


def test_figures_are_seen_from_the_front_and_from_the_back():
    sides = [
        np.sign(s.keypoints[0, 3, 0] - s.keypoints[0, 2, 0]) for s in scenes("pose") if s.keypoints[0, 2:4, 2].all()
    ]
    assert 0.35 < np.mean(np.array(sides) > 0) < 0.65


# ---- the misleading cue ------------------------------------------------------------------------------------------


def test_the_cue_follows_the_class_in_training_and_says_nothing_in_the_test(shown_cue):
    options = {"sides": (16, 32), "level": "flat"}
    agreement = {}
    for strength in (0.95, 0.0):
        many = scenes("localization", 200, cue=strength, **options)
        agreement[strength] = np.mean([shown_cue(scene.image) == scene.labels[0] - 1 for scene in many])
    assert agreement[0.95] > 0.85
    assert agreement[0.0] < 0.35
