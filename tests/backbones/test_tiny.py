"""The tiny backbone and the weights that come with it."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

import minidet
from minidet import Tensor, no_grad
from minidet.array_file import read_arrays
from minidet.backbones import TinyBackbone, cut, load_weights, normalize, tiny
from minidet.backbones.weights import read_weights
from minidet.data import CLASSES, make_scene
from minidet.data.miniscene import SCENES
from minidet.device import to_numpy
from minidet.models.classifier import Classifier
from minidet_kernels import emulator

UNSEEN = 2026  # seed of pictures that no training used: those of the commands have small ones
ACCURACY = 0.95


def pictures(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Textured scenes with one object: images (N, 3, 64, 64) in [0, 1] and labels (N,) from 1."""
    rng = np.random.default_rng(UNSEEN)
    scenes = [make_scene(rng, **SCENES["localization"]) for _ in range(count)]
    images = np.stack([scene.image for scene in scenes]).astype(np.float32) / 255
    return images.transpose(0, 3, 1, 2), np.array([scene.labels[0] for scene in scenes])


def test_the_shipped_file_is_the_one_of_the_readme_and_small():
    digest = hashlib.sha256(tiny.PRETRAINED.read_bytes()).hexdigest()
    assert digest == tiny.PRETRAINED_SHA256
    assert digest in (Path(__file__).parents[2] / "README.md").read_text()
    assert tiny.PRETRAINED.stat().st_size < 400_000


def test_the_shipped_weights_tell_classes_apart_in_pictures_they_never_saw():
    arrays, saved = read_arrays(tiny.PRETRAINED)
    assert saved["classes"][1:] == list(CLASSES)
    assert all(np.isfinite(array).all() for array in arrays.values())
    model = Classifier(TinyBackbone(tiny.PRETRAINED_CHANNELS), len(CLASSES)).eval()
    load_weights(model, tiny.PRETRAINED)
    images, labels = pictures(300)
    with no_grad():
        found = np.array([result["labels"][0] for result in model(Tensor(images))])
    assert (found == labels).mean() >= ACCURACY


def test_a_single_image_is_told_from_a_batch():
    with pytest.raises(ValueError, match=r"expected x \(N, 3, H, W\), got \(3, 64, 64\); looks like one image, use x"):
        TinyBackbone()(Tensor(np.zeros((3, 64, 64), np.float32)))


def test_the_pretrained_backbone_has_the_files_weights_at_any_stride():
    arrays = read_weights(tiny.PRETRAINED)
    for stride in (None, 4):
        backbone = TinyBackbone.pretrained(stride)
        assert backbone.stride == (stride or 16)
        assert backbone.out_channels == tiny.PRETRAINED_CHANNELS[-1]
        for key, array in backbone.state_dict().items():
            np.testing.assert_array_equal(array, arrays[f"backbone.{key}"].astype(array.dtype), err_msg=key)


def test_a_shipped_file_that_was_changed_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(tiny.PRETRAINED.read_bytes() + b" ")
    monkeypatch.setattr(tiny, "PRETRAINED", path)
    with pytest.raises(ValueError, match=r"tiny.safetensors: expected the file with SHA-256 .*; install minidet anew"):
        TinyBackbone.pretrained()


def test_the_mean_colour_says_nothing():
    minidet.manual_seed(0)
    backbone = TinyBackbone((4, 8)).eval()
    images = np.random.default_rng(0).random((2, 3, 16, 16), dtype=np.float32)
    tinted = images + np.float32([0.3, -0.2, 0.1]).reshape(3, 1, 1)
    with no_grad():
        found, expected = backbone(Tensor(tinted)).data, backbone(Tensor(images)).data
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not()))
def test_on_the_gpu_it_is_cut_and_gives_the_cpus_maps_and_gradients():
    images = np.random.default_rng(0).random((1, 3, 16, 16), dtype=np.float32)
    found = []
    with emulator.emulated():
        for device in ("cpu", "cuda"):
            minidet.manual_seed(0)
            extractor = cut(TinyBackbone((2, 3, 4)).to(device), "stages.0")
            assert (extractor.out_channels, extractor.stride) == (3, 4)
            maps = extractor(normalize(minidet.tensor(images, device=device)))
            (maps * maps).sum().backward()
            found.append([to_numpy(maps.data), *(to_numpy(p.grad.data) for p in extractor.parameters())])
    for there, here in zip(found[1], found[0], strict=True):
        np.testing.assert_allclose(there, here, rtol=0, atol=1e-4 * max(1, np.abs(here).max()))
