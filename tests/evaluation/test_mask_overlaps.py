"""Masks' run lengths, areas and overlaps, also with crowds, against pycocotools on 1,000 generated ones."""

import numpy as np
import pytest

from minidet.data.masks import counts_to_mask, mask_to_counts, pack_counts, unpack_counts
from minidet.evaluation.groups import group
from minidet.evaluation.overlaps import MASKS, areas_of, overlaps, packed

coco_mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is the oracle; pip install '.[test]'")


def random_masks(rng: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
    """Rectangles with holes and noise, some of them empty or full."""
    masks = np.zeros((count, *size), bool)
    for mask in masks:
        top, left = rng.integers(0, size[0]), rng.integers(0, size[1])
        mask[top : top + rng.integers(1, 30), left : left + rng.integers(1, 30)] = True
        mask &= rng.random(size) > rng.choice([0, 0.02, 0.3])
        mask |= rng.random() < 0.03
    return masks


@pytest.mark.parametrize("seed", range(20))
def test_fifty_masks_are_pycocotools(seed):
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(20, 60, 2).tolist())
    masks = random_masks(rng, 50, size)
    theirs = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    for mask, encoded in zip(masks, theirs, strict=True):
        counts = mask_to_counts(mask)
        assert pack_counts(counts) == encoded["counts"].decode()
        np.testing.assert_array_equal(counts_to_mask(unpack_counts(encoded["counts"].decode()), *size), mask)
    np.testing.assert_array_equal(areas_of(packed(masks)), coco_mask.area(theirs))

    found, true = masks[:30], masks[30:]
    crowd = rng.random(20) < 0.3
    ones = {"labels": np.ones(30, np.int64), "scores": np.linspace(1, 0, 30), "masks": found}
    groups = group([ones], [{"labels": np.ones(20, np.int64), "iscrowd": crowd, "masks": true}], 1, MASKS)
    expected = coco_mask.iou(theirs[:30], theirs[30:], crowd.astype(np.uint8).tolist())
    d, g = groups.pairs()
    assert len(d) == 600
    mine = np.zeros((30, 20))
    mine[groups.detections.rows[d], groups.truths.rows[g]] = overlaps(groups, MASKS)
    np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-12)
