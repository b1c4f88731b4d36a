"""What holds for all tests."""

import os

# Two workers of pytest-xdist share the cores. By default OpenMP's idle threads wait by spinning, each worker's on the
# core that the other one needs.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
