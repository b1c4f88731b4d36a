"""R-CNN's box regressors: for each class a linear map from a region's features to where its object's box is.

    d(P) = (dx, dy, dw, dh) = W (x, 1)      x: the region's features from the last convolutional map, "pool5"

found by ridge regression, min over W of  sum over regions |t - W (x, 1)|^2 + RIDGE |W|^2,  from regions near an object,
whose targets t are the deltas of the box coder less their mean, which the last column of W gets back (Girshick et al.
2014, appendix C). The authors' code also whitens the targets, and undoes it in W; W is linear in them, so that this
changes nothing but rounding, and is left out.
"""

import numpy as np
from scipy.linalg import solve

RIDGE = 1000.0  # appendix C: without it the map learns the noise; more of it leaves boxes where the proposals are
MIN_IOU = 0.6  # of the regions that are learned from: of those farther away, nobody could say where the object is


def fit_box_ridge(features: np.ndarray, targets: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """W (4, D + 1), float64, from features (N, D) and deltas (N, 4): d = W[:, :-1] @ x + W[:, -1].

    N may be 0: W is then 0 and leaves every box as it is.
    """
    if len(features) == 0:
        return np.zeros((4, features.shape[1] + 1))
    mean = targets.mean(axis=0, dtype=np.float64)
    centred = targets - mean
    x = np.column_stack([features, np.ones(len(features))]).astype(np.float64)
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += ridge
    weights = solve(gram, x.T @ centred, assume_a="pos").T
    weights[:, -1] += mean
    return weights
