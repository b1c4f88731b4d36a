"""The joints of people, their limbs and their mirror images, as three data sets number them.

Right and left are the person's own, not the picture's. A joint is (x, y, v): x, y in pixels where a whole number
is the *centre* of a pixel; v is 0 not labelled, 1 labelled but hidden, 2 visible (COCO's convention).
"""

from collections.abc import Sequence

# Leeds Sports Pose (Johnson and Everingham, BMVC 2010), the 14 of the lecture.
LSP_JOINTS = (
    "right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle",
    "right wrist", "right elbow", "right shoulder", "left shoulder", "left elbow", "left wrist",
    "neck", "head top",
)  # fmt: skip

# Pairs of joints that a limb connects; the order is that of drawing.
LSP_LIMBS = (
    (0, 1), (1, 2), (2, 12), (3, 12), (3, 4), (4, 5),
    (6, 7), (7, 8), (8, 12), (9, 12), (9, 10), (10, 11),
    (12, 13),
)  # fmt: skip

# In a mirrored photograph the right ankle is a left ankle: new joint k was joint LSP_SWAP[k].
LSP_SWAP = (5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13)

# MPII Human Pose (Andriluka et al., CVPR 2014), by its joint ids 0 to 15. What it calls "upper neck" is LSP's neck.
MPII_JOINTS = (
    "right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle",
    "pelvis", "thorax", "neck", "head top",
    "right wrist", "right elbow", "right shoulder", "left shoulder", "left elbow", "left wrist",
)  # fmt: skip
MPII_LIMBS = (
    (0, 1), (1, 2), (2, 6), (3, 6), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9),
    (10, 11), (11, 12), (12, 7), (13, 7), (13, 14), (14, 15),
)  # fmt: skip
MPII_SWAP = (5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10)

# COCO's 17 (Lin et al. 2014; "keypoints" and "skeleton" of its person category, counted from 0).
COCO_JOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
COCO_LIMBS = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10), (1, 2),
    (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip
COCO_SWAP = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)

# Names and limbs by the name that a setting has for them.
JOINTS = {"lsp": (LSP_JOINTS, LSP_LIMBS), "mpii": (MPII_JOINTS, MPII_LIMBS), "coco": (COCO_JOINTS, COCO_LIMBS)}

NOT_LABELLED, HIDDEN, VISIBLE = 0, 1, 2


def torso_diagonals(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """The joints at the ends of the torso's two diagonals, left shoulder to right hip and right shoulder to left hip:
    their length is DeepPose's diameter of a pose. Empty where the names have no such joints."""
    pairs = (("left shoulder", "right hip"), ("right shoulder", "left hip"))
    return tuple((names.index(a), names.index(b)) for a, b in pairs if a in names and b in names)
