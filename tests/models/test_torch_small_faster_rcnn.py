"""The rival of benchmarks/faster_rcnn.py computes what the small Faster R-CNN does, or its times would say nothing."""

import numpy as np
import pytest

import minidet
from minidet import no_grad
from minidet.backbones import TinyBackbone
from minidet.boxes import base_anchors
from minidet.models.faster_rcnn import small_faster_rcnn
from tests.models.detector_helpers import larger_heads, scene

torch = pytest.importorskip("torch", reason="the rival is written in torch")
pytest.importorskip("numba", reason="and its suppression in Numba")
rival = pytest.importorskip("benchmarks.torch_faster_rcnn", reason="benchmarks/ is not part of the package")

CLASSES, ALL = 4, 100_000  # samples: of all candidates nothing is drawn by chance


@pytest.fixture(params=[(4, 1), (8, 1), (4, 2)], ids="stride {0[0]}, RPN {0[1]}".format)
def both(request, monkeypatch):
    """The two models with the same weights, trained on all anchors and regions."""
    minidet.manual_seed(2)
    anchors = base_anchors((12, 20, 32), (0.5, 1, 2))
    stride, rpn_stride = request.param
    model = small_faster_rcnn(TinyBackbone.pretrained(stride), CLASSES, anchors, 32, rpn_stride)
    larger_heads(model, np.random.default_rng(0))
    model.rpn.batch_size_per_image = model.roi_heads.batch_size_per_image = ALL
    model.rpn.positive_fraction = model.roi_heads.positive_fraction = 0.5
    for name in ("RPN", "ROI"):
        monkeypatch.setattr(rival, f"{name}_SAMPLES", ALL)
        monkeypatch.setattr(rival, f"{name}_POSITIVES", ALL // 2)
    other = rival.TorchSmallFasterRCNN(anchors, CLASSES, 32, stride, rpn_stride)
    state = {name: torch.from_numpy(np.array(array)) for name, array in model.state_dict().items()}
    missing, unexpected = other.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return model, other


def scenes():
    """Two images with objects, one without, and their targets."""
    rng = np.random.default_rng(1)
    pairs = [scene(rng, 64, 96, count) for count in (3, 1, 0)]
    return np.stack([image.numpy() for image, _ in pairs]), [target for _, target in pairs]


def test_the_same_losses_and_gradients(both):
    model, other = both
    images, targets = scenes()
    losses = model(minidet.Tensor(images), targets)
    sum(losses.values()).backward()
    as_torch = [{key: torch.from_numpy(target[key]) for key in ("boxes", "labels")} for target in targets]
    theirs = other(torch.from_numpy(images), as_torch)
    sum(theirs.values()).backward()
    assert set(losses) == set(theirs)
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(theirs[name].item(), rel=1e-4), name
    expected = {name: parameter.grad.numpy() for name, parameter in other.named_parameters()}
    for name, parameter in model.named_parameters():
        # Where rounding puts a ReLU's input on the other side of 0, a gradient moves by some 1e-3: torch's own in
        # float32 and in float64 differ by as much. Else they agree to 1e-5, as with these weights.
        distance = np.linalg.norm(parameter.grad.numpy() - expected[name])
        assert distance < 1e-2 * np.linalg.norm(expected[name]), name


def test_the_same_detections(both):
    """In float64: in float32 rounding decides which of two boxes that overlap by 0.7 or 0.5, nearly, stays."""
    model, other = both[0].eval().to(np.float64), both[1].eval().double()
    images = scenes()[0].astype(np.float64)
    with no_grad(), torch.no_grad():
        ours, theirs = model(minidet.Tensor(images)), other(torch.from_numpy(images))
    for found, expected in zip(ours, theirs, strict=True):
        rows, others = (
            np.column_stack([one["labels"] * 100, one["scores"] * 100, one["boxes"]]) for one in (found, expected)
        )
        assert len(rows) == len(others) == 100
        # Where two scores are equal but for rounding, the order may be another.
        distances = np.abs(rows[:, None] - others).max(axis=2)
        assert max(distances.min(axis=0).max(), distances.min(axis=1).max()) < 1e-3
