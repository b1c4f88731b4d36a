"""Leeds Sports Pose's joints.mat: one matrix of 14 joints an image, one person an image.

The original has shape 3 x 14 x N with rows x, y and "occluded" (1 = hidden, whatever its readme's wording); the
extended set has 14 x 3 x N with x, y and "visible" (0 = not labelled). Coordinates are kept as they are.
Column n belongs to the n-th image in the order of the names.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minidet.data.files import AnnotationError, write_atomic
from minidet.data.formats.matlab import open_matlab
from minidet.data.formats.record import BACKGROUND, Annotations, OnProblem, Record, fill, raise_problem
from minidet.data.images import ImageError, image_size
from minidet.data.joints import HIDDEN, LSP_JOINTS, NOT_LABELLED, VISIBLE

MAX_BYTES = 64 << 20  # LSP extended, 10,000 people, has 3 MB; the same limit holds once it is decompressed

# The person's box is not in the file: it is the joints' extent, enlarged by this fraction of its longer side on
# every side, because flesh surrounds joints.
BOX_MARGIN = 0.05


def read_lsp(
    path: Path | str, images: Sequence[Path], on_problem: OnProblem = raise_problem, max_bytes: int = MAX_BYTES
) -> Annotations:
    """Read and check joints.mat for the given images, one a column. on_problem: as in read_coco."""
    path = Path(path)
    keypoints = _load(path, max_bytes)  # (N, 14, 3) x, y, v
    if len(keypoints) != len(images):
        raise AnnotationError(f"{path}: expected one column of joints an image, got {len(keypoints)} for {len(images)}")
    records = []
    for index, (image, joints) in enumerate(zip(images, keypoints, strict=True)):
        try:
            records.append(_to_record(Path(image), joints, f"{path.name}: joints[:, :, {index}]"))
        except (AnnotationError, ImageError) as error:
            on_problem(error if isinstance(error, AnnotationError) else AnnotationError(str(error)))
    return Annotations(records, (BACKGROUND, "person"), joint_names=LSP_JOINTS)


def _load(path: Path, max_bytes: int) -> np.ndarray:
    """(N, 14, 3) float64 x, y, v from either layout. scipy reads numbers only here; nothing is executed."""
    from scipy.io import loadmat, whosmat

    with open_matlab(path, max_bytes) as file:
        found = {name: shape for name, shape, _ in whosmat(file)}
        shape = found.get("joints")
        if shape is None or len(shape) != 3 or shape[:2] not in ((3, 14), (14, 3)):
            raise AnnotationError(f"{path}: expected the variable joints, 3 x 14 x N or 14 x 3 x N, found {found}")
        joints = loadmat(file, variable_names=["joints"])["joints"].astype(np.float64)
    original = shape[0] == 3
    joints = joints.transpose(2, 1, 0) if original else joints.transpose(2, 0, 1)
    flag = np.where(joints[:, :, 2] != 0, 1, 0)
    unlabelled = ~np.isfinite(joints[:, :, :2]).all(axis=2)  # NaN marks an unlabelled joint in the original layout
    if original:
        visibility = np.where(flag == 1, HIDDEN, VISIBLE)
    else:
        visibility = np.where(flag == 1, VISIBLE, NOT_LABELLED)
    visibility = np.where(unlabelled, NOT_LABELLED, visibility)
    places = np.where((visibility > NOT_LABELLED)[..., None], joints[:, :, :2], 0.0)
    return np.concatenate([places, visibility[..., None]], axis=2)


def _to_record(image: Path, joints: np.ndarray, where: str) -> Record:
    height, width = size = image_size(image)
    labelled = joints[joints[:, 2] > NOT_LABELLED, :2]
    if len(labelled) < 2:
        raise AnnotationError(f"{where}: expected at least 2 labelled joints, got {len(labelled)}; remove the image")
    low, high = labelled.min(axis=0), labelled.max(axis=0) + 1  # pixel centres -> the pixels' far edges
    longer = (high - low).max()
    # Some of LSP's joints were clicked a little outside the picture; half a person away is a mistake.
    if (low < -longer / 2).any() or (high > [width + longer / 2, height + longer / 2]).any():
        raise AnnotationError(f"{where}: expected joints in the {width} x {height} image, got x, y up to {high - 1}")
    box = np.clip([*(low - BOX_MARGIN * longer), *(high + BOX_MARGIN * longer)], 0, [width, height, width, height])
    if (box[2:] <= box[:2]).any():
        raise AnnotationError(f"{where}: expected joints in the {width} x {height} image, got none inside")
    record = fill(Record(image, image.name, size), [{"box": box, "label": 1}])
    record.keypoints = joints[None]
    return record


def write_lsp(path: Path | str, records: Sequence[Record]) -> None:
    """Write joints.mat, 3 x 14 x N, rows x, y, occluded; NaN where a joint is not labelled.

    LSP knows one person an image: records must have exactly one each.
    """
    from scipy.io import savemat

    for record in records:
        if record.keypoints is None or len(record.keypoints) != 1:
            count = 0 if record.keypoints is None else len(record.keypoints)
            raise ValueError(f"write_lsp: expected exactly one person in {record.name}, got {count}")
    joints = np.concatenate([record.keypoints for record in records]).transpose(2, 1, 0).copy()  # (3, 14, N)
    joints[:2, joints[2] == NOT_LABELLED] = np.nan
    joints[2] = joints[2] == HIDDEN
    buffer = io.BytesIO()
    savemat(buffer, {"joints": joints}, do_compression=True)
    write_atomic(path, buffer.getvalue())
