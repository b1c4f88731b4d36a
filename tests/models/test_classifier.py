"""The classifier: scores of pooled features, a loss of labels alone, and what is refused."""

import numpy as np
import pytest

import minidet
from minidet import Tensor
from minidet.backbones import TinyBackbone
from minidet.models.classifier import Classifier


def make() -> Classifier:
    minidet.manual_seed(0)
    return Classifier(TinyBackbone((4, 8)), 3)


def images(count: int = 4) -> Tensor:
    return Tensor(np.random.default_rng(0).random((count, 3, 16, 16), dtype=np.float32))


def test_scores_losses_and_predictions_by_hand() -> None:
    model = make().eval()
    features = model.backbone(images()).data.astype(float)
    scores = features.mean(axis=(2, 3)) @ model.fc.weight.data.T + model.fc.bias.data
    np.testing.assert_allclose(model.logits(images()).data, scores, atol=1e-6)
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    labels = [1, 3, 2, 3]
    loss = model(images(), [{"labels": np.array([label])} for label in labels])["class"]
    expected = np.mean([-np.log(row[label - 1]) for row, label in zip(probabilities, labels, strict=True)])
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    for row, result in zip(probabilities, model(images()), strict=True):
        assert result["labels"].tolist() == [row.argmax() + 1]
        np.testing.assert_allclose(result["class_scores"], row, atol=1e-6)
        np.testing.assert_allclose(result["scores"], [row.max()], atol=1e-6)


def test_boxes_are_not_read() -> None:
    targets = [{"labels": np.array([1]), "boxes": boxes} for boxes in (np.full((1, 4), np.nan), np.zeros((0, 4)))]
    alone = [{"labels": np.array([1])}] * 2
    assert make()(images(2), targets)["class"].item() == make()(images(2), alone)["class"].item()


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="Classifier: expected one label an image, got 2 in image 1 of a batch"):
        make()(images(2), [{"labels": np.array([1])}, {"labels": np.array([1, 2])}])
    for label in (0, 4):
        with pytest.raises(ValueError, match="Classifier: expected labels 1 to 3, got"):
            make()(images(1), [{"labels": np.array([label])}])
