"""Proposals on disk: taken from the file where it is exactly theirs, searched anew where it is anything else."""

import shutil

import numpy as np
import pytest

from minidet.array_file import read_arrays, write_arrays
from minidet.data import make_dataset, open_dataset
from minidet.proposals import cache, proposals_for, selective_search


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    make_dataset(folder, level="flat", size=32, splits={"train": 4, "val": 2}, progress=False)
    return open_dataset(folder, "train", masks=False)


@pytest.fixture
def searched(monkeypatch) -> list:
    """The images that were searched."""
    calls = []

    def counting(image, *rest):
        calls.append(image)
        return selective_search(image, *rest)

    monkeypatch.setattr(cache, "selective_search", counting)
    return calls


def assert_right(found, dataset, mode="single", seed=0, limit=2000) -> None:
    assert len(found) == len(dataset)
    for boxes, sample in zip(found, dataset, strict=True):
        np.testing.assert_array_equal(boxes, selective_search(sample.image, mode, seed, limit))
        assert boxes.dtype == np.float32


def only_file(folder):
    (path,) = folder.iterdir()
    return path


def test_boxes_are_searched_once(dataset, tmp_path, searched) -> None:
    folder = tmp_path / "made" / "when needed"
    for _ in range(2):
        assert_right(proposals_for(dataset, folder, "single"), dataset)
    assert len(searched) == 4
    _, metadata = read_arrays(only_file(folder))
    assert metadata == {
        "version": 1, "data": dataset.digest(), "spaces": ["HSV"], "similarities": ["CTSF"], "ks": [100], "seed": 0,
        "limit": 2000,
    }  # fmt: skip


def test_other_questions_have_other_files(dataset, tmp_path, searched) -> None:
    assert_right(proposals_for(dataset, tmp_path, "single"), dataset)
    assert_right(proposals_for(dataset, tmp_path, "fast"), dataset, "fast")
    assert_right(proposals_for(dataset, tmp_path, "fast", seed=1), dataset, "fast", 1)
    assert_right(proposals_for(dataset, tmp_path, "fast", limit=2), dataset, "fast", 0, 2)
    part = dataset.subset([2, 0])
    assert_right(proposals_for(part, tmp_path, "fast"), part, "fast")
    assert len(list(tmp_path.iterdir())) == 5
    assert len(searched) == 18


class Interrupted(Exception):
    """As by Ctrl-C, which would end the tests."""


def test_an_interrupted_search_goes_on_where_it_was(dataset, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cache, "SECONDS_PER_SAVE", -1)
    calls = []

    def interrupted(image, *rest):
        if len(calls) == 3:
            raise Interrupted
        calls.append(image)
        return selective_search(image, *rest)

    monkeypatch.setattr(cache, "selective_search", interrupted)
    with pytest.raises(Interrupted):
        proposals_for(dataset, tmp_path, "single")
    calls.clear()
    assert_right(proposals_for(dataset, tmp_path, "single"), dataset)
    assert len(calls) == 1


def test_a_damaged_file_is_made_anew(dataset, tmp_path, searched) -> None:
    proposals_for(dataset, tmp_path, "single")
    path = only_file(tmp_path)
    whole = path.read_bytes()
    for content in (whole[:-1], b"", whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]):
        path.write_bytes(content)
        with pytest.warns(RuntimeWarning, match=f"{path.name}: .*searched anew"):
            assert_right(proposals_for(dataset, tmp_path, "single"), dataset)
        assert path.read_bytes() == whole
    assert len(searched) == 16


def test_a_file_of_something_else_is_not_taken(dataset, tmp_path) -> None:
    proposals_for(dataset, tmp_path, "single")
    path = only_file(tmp_path)
    val = proposals_for(dataset.subset([1, 0, 2, 3]), tmp_path / "other", "single")
    shutil.copy(only_file(tmp_path / "other"), path)
    with pytest.warns(RuntimeWarning, match=r"this data set and mode, but \['data'\] differ"):
        assert_right(proposals_for(dataset, tmp_path, "single"), dataset)
    assert len(val) == 4


@pytest.mark.parametrize(
    "arrays",
    [
        {"boxes": np.zeros((3, 4), np.float32), "offsets": np.array([0, 1, 2])},
        {"boxes": np.zeros((3, 4), np.float32), "offsets": np.array([0, 1, 1, 1, 1, 3])},
        {"boxes": np.zeros((3, 4)), "offsets": np.array([0, 1, 2, 3, 3])},
        {"boxes": np.zeros((3, 4), np.float32)},
    ],
)
def test_arrays_that_do_not_fit_are_not_taken(dataset, tmp_path, arrays) -> None:
    proposals_for(dataset, tmp_path, "single")
    path = only_file(tmp_path)
    write_arrays(path, arrays, read_arrays(path)[1])
    with pytest.warns(RuntimeWarning, match="searched anew"):
        assert_right(proposals_for(dataset, tmp_path, "single"), dataset)


def test_what_the_files_of_a_folder_hold(dataset, tmp_path) -> None:
    some = dataset.subset([2, 0])
    digests = {dataset.digest(), some.digest()}
    assert cache.kept_in(tmp_path, digests) == {"images": 0, "bytes": 0}
    proposals_for(dataset, tmp_path, "single")
    proposals_for(some, tmp_path, "single")
    (tmp_path / "other.safetensors").write_bytes(b"something else")
    sizes = [path.stat().st_size for path in tmp_path.iterdir() if path.name.startswith("selective")]
    assert cache.kept_in(tmp_path, digests) == {"images": 6, "bytes": sum(sizes)}
    assert cache.kept_in(tmp_path, {some.digest()})["images"] == 2
