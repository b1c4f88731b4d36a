"""The 14 joints of the Leeds Sports Pose data set (Johnson and Everingham, BMVC 2010), in its order.

Right and left are the person's own, not the picture's. A joint is (x, y, v): x, y in pixels where a whole number
is the *centre* of a pixel; v is 0 not labelled, 1 labelled but hidden, 2 visible (COCO's convention).
"""

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

NOT_LABELLED, HIDDEN, VISIBLE = 0, 1, 2
