"""What holds for all tests."""

import os

import pytest

# Two workers of pytest-xdist share the cores. By default OpenMP's idle threads wait by spinning, each worker's on the
# core that the other one needs.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(autouse=True)
def _same_random_numbers():
    """New layers get the same weights whatever ran before, so that a test that fails does so again alone."""
    from minidet import manual_seed

    manual_seed(0)
