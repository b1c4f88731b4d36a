"""What each kernel takes, and how it is broken on purpose: a module for every few operations.

Each module has

    CASES     the inputs, drawn by Hypothesis, and the adjoints: see `harness.Case`
    MUTANTS   {what is wrong: (folder, the kernel it spoils, a place in the folder's reference.py, what is put there)}
    CUDA_MUTANTS, if there is a CUDA version: the same with a place in the folder's .cu file

and is found by being here.
"""

from importlib import import_module
from pkgutil import iter_modules

_modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__) if module.name != "drawing"]

CASES = [case for module in _modules for case in module.CASES]
BY_NAME = {case.name: case for case in CASES}
MUTANTS = {told: mutant for module in _modules for told, mutant in module.MUTANTS.items()}
CUDA_MUTANTS = {told: mutant for module in _modules for told, mutant in getattr(module, "CUDA_MUTANTS", {}).items()}
