"""Checkpoints: what is read is what was written, or it is refused by name."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from minidet.array_file import CheckpointError, read_arrays, write_arrays
from minidet.training.checkpoint import load_newest, save_checkpoint

ROOT = Path(__file__).parents[2]
ARRAYS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.array(7), "none": np.zeros((0, 4), np.float32)}


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
        npst.arrays(
            st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]),
            npst.array_shapes(min_dims=0, min_side=0, max_side=4),
        ),
        max_size=4,
    ),
    st.dictionaries(st.text(max_size=5), st.integers() | st.floats(allow_nan=False) | st.text(max_size=9), max_size=4),
)
def test_what_is_written_is_read_again(tmp_path_factory, arrays, metadata):
    path = tmp_path_factory.mktemp("files") / "x.safetensors"
    write_arrays(path, arrays, metadata)
    found, told = read_arrays(path)
    assert told == metadata
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()  # NaNs with their bits included


def test_arrays_in_any_memory_layout_are_written_in_order(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    write_arrays(tmp_path / "x", {"a": array.transpose(2, 0, 1), "b": array[:, ::-2]}, {})
    found, _ = read_arrays(tmp_path / "x")
    np.testing.assert_array_equal(found["a"], array.transpose(2, 0, 1))
    np.testing.assert_array_equal(found["b"], array[:, ::-2])


def test_equal_contents_give_equal_files(tmp_path):
    write_arrays(tmp_path / "a", ARRAYS, {"x": 1, "y": 2, "z": 3})
    write_arrays(tmp_path / "b", dict(reversed(ARRAYS.items())), {"x": 1, "y": 2, "z": 3})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_programs_can_read_the_weights(tmp_path):
    write_arrays(tmp_path / "x", ARRAYS, {"x": 1})
    found = safetensors.numpy.load_file(tmp_path / "x")
    np.testing.assert_array_equal(found["w"], [[0, 1, 2], [3, 4, 5]])


def test_a_file_cut_short_at_any_length_is_refused_with_its_name(tmp_path):
    write_arrays(tmp_path / "whole", ARRAYS, {"x": 1})
    content = (tmp_path / "whole").read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in range(len(content)):
        cut.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
            read_arrays(cut)
    cut.write_bytes(content + b"\0")
    with pytest.raises(CheckpointError, match="checksum"):
        read_arrays(cut)


def test_a_file_with_one_bit_flipped_in_any_byte_is_refused(tmp_path):
    write_arrays(tmp_path / "whole", ARRAYS, {"x": 1})
    content = (tmp_path / "whole").read_bytes()
    flipped = tmp_path / "flipped"
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << (position % 8)
        flipped.write_bytes(changed)
        with pytest.raises(CheckpointError, match="flipped"):
            read_arrays(flipped)


def test_files_without_our_checksum_are_refused(tmp_path):
    safetensors.numpy.save_file({"a": np.zeros(3)}, tmp_path / "theirs", {"format": "np"})
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("sha256:" + "0" * 64)
    for name in ("theirs", "empty", "text", "missing"):
        with pytest.raises(CheckpointError, match=name):
            read_arrays(tmp_path / name)
    with pytest.raises(CheckpointError, match="expected a file of weights"):
        read_arrays(tmp_path)


def sealed(header, arrays=b""):
    """A file with a valid checksum around any header."""
    header = header.encode()
    content = bytearray(len(header).to_bytes(8, "little") + header + arrays)
    start = content.index(b"sha256:") + len(b"sha256:")
    digest = hashlib.sha256(content[:start] + content[start + 64 :]).hexdigest()
    content[start : start + 64] = digest.encode()
    return bytes(content)


MARK = "sha256:" + "0" * 64
OFFSETS = '"data_offsets": [0, 4]'


@pytest.mark.parametrize(
    "header",
    [
        MARK,
        f'["{MARK} {{}}"]',
        f'{{"__metadata__": {{"other": "{MARK} {{}}"}}}}',
        f'{{"__metadata__": {{"minidet": "{MARK} {{"}}}}',
        f'{{"__metadata__": {{"minidet": "{MARK} []"}}}}',
        f'{{"__metadata__": {{"minidet": "{MARK} " }}, "a": {"[" * 100_000}',
        f'{{"__metadata__": {{"minidet": "{MARK} {{}}"}}, "a": {{"dtype": "F32", "shape": [9], {OFFSETS}}}}}',
        f'{{"__metadata__": {{"minidet": "{MARK} {{}}"}}, "a": {{"dtype": "F7", "shape": [1], {OFFSETS}}}}}',
    ],
)
def test_an_odd_file_with_a_valid_checksum_is_refused_with_its_name(tmp_path, header):
    (tmp_path / "good").write_bytes(sealed(f'{{"__metadata__":{{"minidet":"{MARK} {{}}"}}}}'))
    assert read_arrays(tmp_path / "good") == ({}, {})
    (tmp_path / "odd").write_bytes(sealed(header, bytes(4)))
    with pytest.raises(CheckpointError, match="odd: expected a file as minidet writes it, but "):
        read_arrays(tmp_path / "odd")


def test_a_file_larger_than_allowed_is_refused_unread(tmp_path):
    write_arrays(tmp_path / "x", ARRAYS, {})
    with pytest.raises(CheckpointError, match="expected at most 100 bytes"):
        read_arrays(tmp_path / "x", max_bytes=100)


# Each one ends the process as kill -9 would, at another point of the save.
CRASHES = {
    "while writing": "os.fsync = lambda handle: os._exit(9)",
    "before the rename": "os.replace = lambda a, b: os._exit(9)",
    "after the rename": "replace = os.replace; os.replace = lambda a, b: (replace(a, b), os._exit(9))",
}


@pytest.mark.parametrize("moment", CRASHES)
def test_a_crash_leaves_the_old_file_or_the_new_one(tmp_path, moment):
    path = tmp_path / "x.safetensors"
    write_arrays(path, {"a": np.zeros(1000)}, {"version": "old"})
    script = f"""
import os
import numpy as np
from minidet.array_file import write_arrays
{CRASHES[moment]}
write_arrays({str(path)!r}, {{"a": np.ones(1000)}}, {{"version": "new"}})
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == 9
    arrays, metadata = read_arrays(path)
    version = "new" if moment == "after the rename" else "old"
    assert metadata["version"] == version
    assert (arrays["a"] == (version == "new")).all()


def test_the_two_newest_checkpoints_are_kept(tmp_path):
    for step in (0, 5, 9, 12):
        save_checkpoint(tmp_path, step, ARRAYS, {"step": step})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000009.safetensors", "step-00000012.safetensors"]


def test_the_newest_good_checkpoint_is_used_and_the_damaged_one_named(tmp_path):
    save_checkpoint(tmp_path, 5, ARRAYS, {"step": 5})
    damaged = save_checkpoint(tmp_path, 9, ARRAYS, {"step": 9})
    damaged.write_bytes(damaged.read_bytes()[:-1])
    told = []
    _, metadata, path = load_newest(tmp_path, told.append)
    assert metadata == {"step": 5}
    assert path.name == "step-00000005.safetensors"
    assert len(told) == 1
    assert "step-00000009" in told[0]


def test_a_damaged_newer_file_does_not_push_out_good_checkpoints(tmp_path):
    save_checkpoint(tmp_path, 5, ARRAYS, {"step": 5})
    save_checkpoint(tmp_path, 9, ARRAYS, {"step": 9}).write_bytes(b"damaged")
    for step in (6, 7):
        save_checkpoint(tmp_path, step, ARRAYS, {"step": step})
    assert load_newest(tmp_path, str)[1] == {"step": 7}
    assert read_arrays(tmp_path / "step-00000006.safetensors")[1] == {"step": 6}


def test_without_a_good_checkpoint_nothing_is_invented(tmp_path):
    assert load_newest(tmp_path, str) is None
    save_checkpoint(tmp_path, 5, ARRAYS, {}).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="no good checkpoint"):
        load_newest(tmp_path, str)
