"""A data set and a trained run that the tests of the commands share."""

import pytest
from small_run import SET_OPTIONS

from minidet.cli import main


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a finished run of the localizer, its data set inside."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "localizer", "--out", str(folder), "--seed", "4", *SET_OPTIONS]) == 0
    return folder
