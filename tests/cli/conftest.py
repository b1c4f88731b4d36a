"""A data set and a trained run that the tests of the commands share: small, because they test the commands."""

import pytest

from minidet.cli import main

SETTINGS = ["size=32", "epochs=1", "batch_size=8", "images=16", "val_images=6", "test_images=5"]
SET_OPTIONS = [part for setting in SETTINGS for part in ("--set", setting)]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a finished run of the localizer, its data set inside."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "localizer", "--out", str(folder), "--seed", "4", *SET_OPTIONS]) == 0
    return folder
