"""load_weights: what fits is copied, and of everything else the file's name, the keys and what to do are told."""

import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from minidet import nn
from minidet.array_file import CheckpointError, write_arrays
from minidet.backbones import load_weights
from minidet.backbones.weights import check_sha256

ROOT = Path(__file__).parents[2]


def make() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


@pytest.fixture
def state():
    """Random arrays for every key."""
    rng = np.random.default_rng(0)
    return {key: rng.normal(size=a.shape).astype(a.dtype) for key, a in make().state_dict().items()}


def assert_loaded(model, state) -> None:
    for key, array in model.state_dict().items():
        np.testing.assert_array_equal(array, state[key])


@pytest.mark.parametrize("ours", [False, True])
def test_plain_files_and_minidets_own_are_loaded(tmp_path, state, ours):
    path = tmp_path / "weights.safetensors"
    write_arrays(path, state, {}) if ours else save_file(state, path)
    model = make()
    load_weights(model, path)
    assert_loaded(model, state)
    load_weights(model, str(path))  # a name will do


def test_half_precision_is_converted(tmp_path, state):
    save_file({key: array.astype(np.float16) if array.ndim else array for key, array in state.items()}, tmp_path / "w")
    model = make()
    load_weights(model, tmp_path / "w")
    assert all(array.dtype == np.float32 for array in model.state_dict().values() if array.ndim)
    np.testing.assert_allclose(model[0].weight.data, state["0.weight"], rtol=1e-3)


def test_a_part_is_taken_by_its_prefix(tmp_path, state):
    save_file({f"backbone.{key}": array for key, array in state.items()} | {"fc.weight": np.ones(3)}, tmp_path / "w")
    model = make()
    load_weights(model, tmp_path / "w", prefix="backbone.")
    assert_loaded(model, state)


def test_not_strict_takes_what_both_have(tmp_path, state):
    del state["3.bias"]
    save_file(state | {"4.weight": np.ones(3, np.float32)}, tmp_path / "w")
    model = make()
    bias = model[3].bias.data.copy()
    load_weights(model, tmp_path / "w", strict=False)
    assert_loaded(model, state | {"3.bias": bias})


def without(state, *keys):
    return {key: array for key, array in state.items() if key not in keys}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda s: without(s, "3.bias", "0.weight"), {}, "missing keys: 0.weight, 3.bias$"),
        (lambda s: s | {"4.weight": np.ones(2)}, {}, "unexpected keys: 4.weight$"),
        (lambda s: s | {"3.weight": np.ones((3, 4, 1, 1))}, {},
         r"wrong shapes: 3.weight: expected \(2, 4, 1, 1\), got \(3, 4, 1, 1\)"),
        (lambda s: s | {"3.weight": np.ones((3, 4, 1, 1))}, {"strict": False}, "wrong shapes: 3.weight"),
        (lambda s: without(s, "1.num_batches_tracked"), {},
         "files of old programs lack num_batches_tracked, which only counts: strict=False leaves it as it is"),
        (lambda s: {f"module.{k}": a for k, a in s.items()}, {},
         "the file's keys begin with 'module.': use prefix='module.'"),
        (lambda s: {f"module.model.{k}": a for k, a in s.items()} | {"x.weight": np.ones(2)}, {},
         "use prefix='module.model.'"),
        (lambda s: {f"module.{k}": a for k, a in s.items()}, {"strict": False}, "use prefix='module.'"),
        (lambda s: {f"module.{k}": a for k, a in s.items()} | {"module.3.weight": np.ones((3, 4, 1, 1))}, {},
         "but prefix='module.' will not do for a network of other sizes: "
         r"3.weight: expected \(2, 4, 1, 1\), got \(3, 4, 1, 1\)$"),
        (lambda s: {"conv.kernel": np.ones(2)}, {}, "no key fits, are they another network's weights"),
        (lambda s: s, {"prefix": "backbone."}, "expected keys that begin with 'backbone.', got "),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_what_to_do(tmp_path, state, change, options, message):
    path = tmp_path / "weights.safetensors"
    save_file(change(state), path)
    model = make()
    before = {key: array.copy() for key, array in model.state_dict().items()}
    with pytest.raises(ValueError, match=message) as error:
        load_weights(model, path, **options)
    assert str(error.value).startswith(f"{path}: ")
    assert_loaded(model, before)


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "unexpected keys: x.1, x.2, x.3, x.4, x.5, x.6$"),
        ({"prefix": "y."}, "expected keys that begin with 'y.', got 0.bias, 0.weight, 1.bias, ...$"),
    ],
)
def test_keys_are_told_in_order(tmp_path, state, ours, options, message):
    path = tmp_path / "weights.safetensors"
    state |= {f"x.{i}": np.ones(1) for i in (4, 2, 6, 1, 3, 5)}
    write_arrays(path, state, {}) if ours else save_file(state, path)
    with pytest.raises(ValueError, match=message):
        load_weights(make(), path, **options)


def test_weights_of_a_part_of_the_model_are_told_where_they_belong(tmp_path, state):
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = make()
            self.fc = nn.Linear(2, 2)

    save_file(state, tmp_path / "w")
    with pytest.raises(ValueError, match=r"the model's keys begin with 'backbone.': load them into model.backbone$"):
        load_weights(Whole(), tmp_path / "w")


def test_a_pickle_is_never_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return exec, ("raise SystemExit('opened')",)

    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Bomb()))
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Bomb()))
    for name in ("bare.pth", "zip.pth"):
        with pytest.raises(ValueError, match=r"got a pickled one, .*safetensors.torch.save_file\(torch.load\("):
            load_weights(make(), tmp_path / name)


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480, 0x580])
def test_a_header_whose_length_reads_as_a_pickles_mark_is_none(tmp_path, length):
    state = make().state_dict()
    save_file(state, tmp_path / "w")
    spaces = length - int.from_bytes((tmp_path / "w").read_bytes()[:8], "little")
    save_file(state, tmp_path / "w", {"note": " " * (spaces - len('"__metadata__":{"note":""},'))})
    assert (tmp_path / "w").read_bytes().startswith(length.to_bytes(8, "little"))
    load_weights(make(), tmp_path / "w")


def test_files_that_are_none_or_damaged_or_too_large_are_refused(tmp_path, state):
    good = tmp_path / "good.safetensors"
    save_file(state, good)
    content = good.read_bytes()
    for name, bad in {"cut": content[:-5], "text": b"hello", "empty": b"", "length": b"\xff" * 16}.items():
        path = tmp_path / name
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=re.escape(f"{path}: expected a safetensors file")):
            load_weights(make(), path)
    with pytest.raises(ValueError, match="nowhere: expected a safetensors file, but No such file"):
        load_weights(make(), tmp_path / "nowhere")
    with pytest.raises(ValueError, match="expected a safetensors file, but"):
        load_weights(make(), tmp_path)
    with pytest.raises(ValueError, match=rf"at most 100 bytes, got {len(content):,}; raise max_bytes"):
        load_weights(make(), good, max_bytes=100)
    ours = tmp_path / "ours.safetensors"
    write_arrays(ours, state, {})
    damaged = bytearray(ours.read_bytes())
    damaged[-1] ^= 1
    ours.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="the checksum does not fit"):
        load_weights(make(), ours)


def test_a_dtype_that_numpy_lacks_is_told(tmp_path):
    header = b'{"0.weight":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    (tmp_path / "w").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(ValueError, match="expected a safetensors file of NumPy's dtypes"):
        load_weights(make(), tmp_path / "w")


def test_another_file_than_the_one_that_was_shipped_is_refused(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(b"abc")
    check_sha256(path, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")  # FIPS 180-4's example
    path.write_bytes(b"abd")
    with pytest.raises(ValueError, match="expected the file with SHA-256 ba78"):
        check_sha256(path, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")


def test_reading_weights_needs_nothing_of_training() -> None:
    """Arrows point down: what trains stands above the networks."""
    program = (
        "import sys; from minidet.backbones import TinyBackbone; TinyBackbone.pretrained(); "
        "print('minidet.training' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    told = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert told == "False\n"
