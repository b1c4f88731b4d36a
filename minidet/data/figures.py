"""Stick figures with the 14 joints of LSP: a chain of limbs whose angles stay within human limits.

The right arm and leg are orange and the left ones blue, so that the sides can be told apart whether the figure is
seen from the front or from the back. Mirroring such a picture therefore does *not* turn left into right (a
mirrored orange arm is still orange): augmentation must not swap the joints, as it must on photographs.
"""

import numpy as np

from minidet.data.shapes import Coverage, capsule_coverage

# Lengths as fractions of the standing height, close to the proportions of an adult.
HEAD, TORSO, UPPER_ARM, FOREARM, THIGH, SHIN = 0.18, 0.29, 0.17, 0.16, 0.25, 0.25
SHOULDER_HALF_WIDTH, HIP_HALF_WIDTH = 0.11, 0.06
LIMB_RADIUS, TORSO_RADIUS, HEAD_RADIUS = 0.032, 0.055, 0.075

# Limits in degrees, (lowest, highest). Arms and legs count from hanging straight down, outwards positive; elbows
# and knees count from straight, elbows bending either way and knees inwards.
ANGLE_LIMITS = {
    "lean": (-20, 20),
    "head": (-20, 20),
    "shoulder": (-10, 160),
    "elbow": (-130, 130),
    "hip": (-10, 60),
    "knee": (-75, 0),
}

RIGHT_COLOR, LEFT_COLOR = (225, 110, 40), (55, 105, 215)

# The limbs, from far to near: (joint, joint, colour group).
RIGHT, LEFT, BODY = 0, 1, 2
LEGS = ((0, 1, RIGHT), (1, 2, RIGHT), (5, 4, LEFT), (4, 3, LEFT))
ARMS = ((8, 7, RIGHT), (7, 6, RIGHT), (9, 10, LEFT), (10, 11, LEFT))
TORSO_JOINTS, HEAD_JOINTS = (2, 3, 8, 9, 12), (12, 13)


def _direction(degrees: float) -> np.ndarray:
    """Unit vector `degrees` away from straight down, towards the picture's right. y points down."""
    radians = np.deg2rad(degrees)
    return np.array([np.sin(radians), np.cos(radians)])


def make_joints(rng: np.random.Generator, height: float, facing: int) -> np.ndarray:
    """A random pose: (14, 2) float64 x, y around a pelvis at (0, 0).

    height: of the figure when it stands upright, in pixels. facing: 1 seen from the front, where the figure's
    right hand is on the picture's left, or -1 seen from the back.
    """

    def angle(name: str) -> float:
        return rng.uniform(*ANGLE_LIMITS[name])

    lean = angle("lean")
    up, across = -_direction(lean), _direction(lean + 90)
    neck = TORSO * up
    joints = np.zeros((14, 2))
    joints[12], joints[13] = neck, neck - HEAD * _direction(lean + angle("head"))
    # Outwards is to the picture's left for the right side of a figure that is seen from the front.
    for outwards, (ankle, knee, hip, wrist, elbow, shoulder) in ((-1, (0, 1, 2, 6, 7, 8)), (1, (5, 4, 3, 11, 10, 9))):
        joints[hip] = outwards * HIP_HALF_WIDTH * across
        joints[shoulder] = neck - 0.03 * up + outwards * SHOULDER_HALF_WIDTH * across
        thigh = angle("hip")
        joints[knee] = joints[hip] + THIGH * _direction(lean + outwards * thigh)
        joints[ankle] = joints[knee] + SHIN * _direction(lean + outwards * (thigh + angle("knee")))
        upper_arm = angle("shoulder")
        joints[elbow] = joints[shoulder] + UPPER_ARM * _direction(lean + outwards * upper_arm)
        joints[wrist] = joints[elbow] + FOREARM * _direction(lean + outwards * (upper_arm + angle("elbow")))
    return joints * height * (facing, 1)


def paint_layers(joints: np.ndarray, height: float, facing: int) -> tuple[list[tuple[Coverage, int]], np.ndarray]:
    """The figure's parts from far to near, and which joints another part hides.

    joints: (14, 2) x, y in continuous pixel coordinates.
    Returns [(coverage, colour group RIGHT, LEFT or BODY), ...], all of one window, and (14,) bool.
    """
    margin = HEAD_RADIUS * height + 2
    left, top = np.floor(joints.min(axis=0) - margin).astype(int)
    right, bottom = np.ceil(joints.max(axis=0) + margin).astype(int)
    window = (int(top), int(left), int(bottom - top), int(right - left))

    def line(start: np.ndarray, end: np.ndarray, radius: float) -> np.ndarray:
        return capsule_coverage(start, end, max(radius * height, 1.0), *window)

    def limbs(parts) -> list[tuple[np.ndarray, int, tuple[int, ...]]]:
        return [(line(joints[a], joints[b], LIMB_RADIUS), group, (a, b)) for a, b, group in parts]

    pelvis = (joints[2] + joints[3]) / 2
    head_middle = joints[13] + (joints[12] - joints[13]) * HEAD_RADIUS / HEAD  # the head's edge is at its top
    torso = np.maximum.reduce([
        line(joints[12], pelvis, TORSO_RADIUS),
        line(joints[8], joints[9], LIMB_RADIUS),
        line(joints[2], joints[3], LIMB_RADIUS),
    ])  # fmt: skip
    head = np.maximum(line(head_middle, head_middle, HEAD_RADIUS), line(joints[12], joints[13], LIMB_RADIUS / 2))
    body = [(torso, BODY, TORSO_JOINTS), (head, BODY, HEAD_JOINTS)]
    parts = limbs(LEGS) + body + limbs(ARMS) if facing > 0 else limbs(ARMS) + limbs(LEGS) + body

    columns, rows = np.floor(joints - (left, top)).astype(int).T  # the pixel under each joint, in the window
    hidden = np.zeros(14, bool)
    for fractions, _, own in parts:
        covered = fractions[rows, columns] >= 0.5
        covered[list(own)] = False
        hidden |= covered
        hidden[list(own)] = False  # this part is nearer than whatever hid its own ends
    return [(Coverage(window[0], window[1], fractions), group) for fractions, group, _ in parts], hidden
