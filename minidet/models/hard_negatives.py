"""R-CNN's support vector machines, one a class, and how they find the negatives that are worth learning from.

An image has a few objects and hundreds of regions that show none; of all images together the regions' features do not
fit into memory, and nearly all of them are told apart at once. So each class keeps a cache of negatives: those that its
SVM finds hard (Girshick et al. 2014, section 2.3 and appendix B; Felzenszwalb et al. 2010, section 4.4):

    of the first image     all negatives come into the cache; the SVMs are trained
    of each other image    those come in that score more than HARD; each image is seen once
    of more than RETRAIN   new ones since its last training, a class's SVM is trained anew, on the positives and the
                           cache; then those are put out that score less than EASY
    at the end             all are trained once more
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

import minidet_kernels as kernels

# Section 2.3 and the authors' code. COST: the larger, the less the weights are held small, and the more a few odd
# regions matter. POSITIVE_WEIGHT: a missed object costs as much as two false ones. BIAS: its feature's value; the
# larger, the freer the border is to move.
COST, POSITIVE_WEIGHT, BIAS = 1e-3, 2.0, 10.0
# The mean length of a region's features, to which they are scaled: COST and BIAS mean something only beside it.
MEAN_NORM = 20.0

# A negative that scores -1 costs nothing yet, so what scores more is hard. The tenth of a thousandth is for rounding: a
# row that supports the border, and holds it, is at -1 but for the last digits.
HARD = -1.0001
EASY = -1.2  # lower: fewer negatives go, for good, but the cache becomes larger
RETRAIN = 2000  # more: the SVMs are trained less often, and choose their negatives by an older border
TOLERANCE = 1e-3  # of the gradients; see kernels.linear_svm


class ImageRegions(NamedTuple):
    """The regions of one image: features (P, D), float32, and negative (P, K), bool: of which classes they are no
    object. What is in the grey zone of a class is neither negative nor positive."""

    features: np.ndarray
    negative: np.ndarray


class ClassSVM:
    """The SVM of one class, and what it is trained on: its positives (Q, D), float32, and a cache of negatives."""

    def __init__(self, positives: np.ndarray) -> None:
        self.features = positives  # then the negatives, as they came
        self.count = len(positives)
        self.alphas = np.zeros(self.count)
        self.weights = np.zeros(positives.shape[1] + 1)  # of the features, and of BIAS
        self.added = 0  # since the last training

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(P,) of features (P, D): positive on the objects' side of the border, 1 and -1 at the margins."""
        return features @ self.weights[:-1].astype(features.dtype) + features.dtype.type(BIAS * self.weights[-1])

    def add(self, features: np.ndarray) -> None:
        """Puts negatives (N, D) into the cache."""
        self.features = np.concatenate([self.features, features])
        self.alphas = np.concatenate([self.alphas, np.zeros(len(features))])
        self.added += len(features)

    def train(self) -> None:
        """The SVM anew, from where the last training ended; then easy negatives leave the cache."""
        positive = np.arange(len(self.features)) < self.count
        self.weights, self.alphas = kernels.linear_svm(
            self.features, positive, self.alphas, COST, POSITIVE_WEIGHT, BIAS, TOLERANCE
        )
        self.added = 0
        stays = positive | (self.scores(self.features) >= EASY)
        self.features, self.alphas = self.features[stays], self.alphas[stays]


def train_svms(positives: Sequence[np.ndarray], images: Iterable[ImageRegions]) -> list[ClassSVM]:
    """The SVMs of K classes, trained in one pass over the images. positives: for each class (Q, D), float32."""
    classes = [ClassSVM(features) for features in positives]
    for number, (features, negative) in enumerate(images):
        for one, candidates in zip(classes, negative.T, strict=True):
            hard = candidates if number == 0 else candidates & (one.scores(features) > HARD)
            if hard.any():
                one.add(features[hard])
            if number == 0 or one.added > RETRAIN:
                one.train()
    for one in classes:
        if one.added:
            one.train()
    return classes
