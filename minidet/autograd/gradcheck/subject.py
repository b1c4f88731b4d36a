"""What is checked: a function (or a Module) as one map from several arrays to several arrays."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backward import grad
from ..modes import enable_grad, no_grad
from ..tensor import Function, Tensor


@dataclass(eq=False)
class Variable:
    """One array that the function is differentiated with respect to."""

    label: str  # "input 0", "parameter conv.weight"
    array: np.ndarray  # a C-contiguous copy of the values; finite differences write into it
    parameter: Tensor | None = None  # the Tensor that is lent the array while the function runs; None: an argument

    @property
    def is_parameter(self) -> bool:
        return self.parameter is not None


class Subject:
    """function(*arguments) with its variables: the inputs that require grad and the parameters."""

    def __init__(self, function: Callable, inputs: Any, parameters: Any, name: str | None) -> None:
        self.name = name or getattr(function, "__name__", type(function).__name__)
        is_class = isinstance(function, type) and issubclass(function, Function)
        self.function = function.apply if is_class else function
        inputs = [inputs] if isinstance(inputs, Tensor | np.ndarray) else list(inputs)
        self.arguments = [as_variable(x, f"input {position}") for position, x in enumerate(inputs)]
        self.variables = [x for x in self.arguments if isinstance(x, Variable)]
        for label, parameter in named_parameters(function, parameters):
            variable = as_variable(parameter, f"parameter {label}", parameter)
            if isinstance(variable, Variable):
                self.variables.append(variable)
        if not self.variables:
            raise ValueError(
                f"gradcheck of {self.name}: nothing to check: expected an input with requires_grad=True, a float64 "
                "array, or a parameter that requires grad"
            )
        self.output_labels: list[str] = []

    @property
    def constants(self) -> list[np.ndarray]:
        """The arrays among the arguments that are not variables: they too must stay as they are."""
        arrays = [x.data if isinstance(x, Tensor) else x for x in self.arguments]
        return [x for x in arrays if isinstance(x, np.ndarray)]

    @contextmanager
    def tensors(self, wanted: Sequence[Variable] = (), arrays: Sequence[Any] | None = None) -> Iterator[list[Tensor]]:
        """One Tensor a variable, around its array (or around `arrays`); those wanted require grad. A parameter is lent
        the array until the block ends."""
        arrays = [variable.array for variable in self.variables] if arrays is None else arrays
        owned = [v.parameter for v in self.variables if v.is_parameter]
        before = [(p, p.data, p.requires_grad) for p in owned]
        made = []
        try:
            for variable, array in zip(self.variables, arrays, strict=True):
                tensor = Tensor(array) if not variable.is_parameter else variable.parameter
                tensor.data, tensor.requires_grad = array.view(), variable in wanted
                made.append(tensor)
            yield made
        finally:
            for parameter, data, requires_grad in before:
                parameter.data, parameter.requires_grad = data, requires_grad

    def call(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Runs the function on Tensors, one a variable. Returns its floating outputs, one after the other."""
        given = dict(zip(self.variables, tensors, strict=True))
        result = self.function(*(given[x] if isinstance(x, Variable) else x for x in self.arguments))
        outputs = [(label, output) for label, output in labelled(result, "output", self.name) if floating(output)]
        for label, output in outputs:
            if output.dtype != np.float64:
                raise TypeError(
                    f"gradcheck of {self.name}: expected float64 results of float64 inputs, got {output.dtype} for "
                    f"{label}; a constant or a parameter inside is {output.dtype}, or the function casts"
                )
        if not outputs:
            raise TypeError(
                f"gradcheck of {self.name}: expected a float64 result, got none that is floating: integers and "
                "booleans have no derivative"
            )
        self.output_labels = [label for label, _ in outputs]
        return [output for _, output in outputs]

    def values(self) -> np.ndarray:
        """All outputs at the variables' present arrays, flattened into one (m,)."""
        with self.tensors() as tensors, no_grad():
            return np.concatenate([output.data.ravel() for output in self.call(tensors)])

    @contextmanager
    def graph(self, wanted: Any = None, arrays: Any = None) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Runs the function forward, recorded: gives the wanted Tensors (default: all) and the outputs."""
        wanted = self.variables if wanted is None else wanted
        with self.tensors(wanted, arrays) as tensors, enable_grad():
            outputs = self.call(tensors)
            yield [t for v, t in zip(self.variables, tensors, strict=True) if v in wanted], outputs


def pull_back(
    outputs: Sequence[Tensor], tensors: Sequence[Tensor], cotangents: Sequence[Any], create_graph: bool = False
) -> list[Any]:
    """The gradient of <outputs, cotangents> with respect to each Tensor: zeros where it does not depend on it."""
    found = grad(outputs, tensors, cotangents, create_graph=create_graph, retain_graph=True, allow_unused=True)
    return [Tensor(np.zeros(x.shape)) if part is None else part for x, part in zip(tensors, found, strict=True)]


def split(flat: np.ndarray, like: Sequence[Any]) -> list[np.ndarray]:
    """One flat array (n,) cut into pieces of the shapes of `like`."""
    ends = np.cumsum([x.size for x in like])
    return [part.reshape(x.shape) for part, x in zip(np.split(flat, ends[:-1]), like, strict=True)]


def floating(output: Tensor) -> bool:
    return output.dtype.kind == "f"


def as_variable(x: Any, label: str, parameter: Tensor | None = None) -> Any:
    """A Tensor that requires grad or a floating array as a Variable; anything else as it is: a constant."""
    if any(inside.requires_grad for inside in _inside(x)):
        raise TypeError(
            f"gradcheck: expected a Tensor or an array for {label}, got a {type(x).__name__} that holds Tensors which "
            "require grad and would not be checked; give them one by one: gradcheck(lambda a, b: f([a, b]), [a, b])"
        )
    array = x.data if isinstance(x, Tensor) else x
    is_variable = x.requires_grad if isinstance(x, Tensor) else isinstance(x, np.ndarray) and x.dtype.kind == "f"
    if not is_variable:
        return x
    if not isinstance(array, np.ndarray):
        raise TypeError(f"gradcheck: expected NumPy arrays, got {type(array).__name__} for {label}; check on the CPU")
    if array.dtype != np.float64:
        advice = "module.to(np.float64)" if parameter is not None else "x.astype(np.float64)"
        raise TypeError(
            f"gradcheck: expected float64, got {array.dtype} for {label}; finite differences need the digits: {advice}"
        )
    return Variable(label, np.array(array, order="C"), parameter)


def _inside(x: Any) -> Iterator[Tensor]:
    """The Tensors in a list, tuple or dict, however deep."""
    for part in x.values() if isinstance(x, dict) else x if isinstance(x, list | tuple) else ():
        if isinstance(part, Tensor):
            yield part
        yield from _inside(part)


def named_parameters(function: Any, parameters: Any) -> list[tuple[Any, Tensor]]:
    """The parameters by name: those given (a dict or a sequence), else the Module's own."""
    if parameters is None:
        return list(function.named_parameters()) if hasattr(function, "named_parameters") else []
    return list(parameters.items()) if isinstance(parameters, dict) else list(enumerate(parameters))


def labelled(result: Any, label: str, name: str) -> Iterator[tuple[str, Tensor]]:
    """The Tensors of a result and what to call them: "output", "output 1", "output 'boxes'"."""
    if isinstance(result, Tensor):
        yield label, result
    elif isinstance(result, dict):
        for key, value in result.items():
            yield from labelled(value, f"{label} {key!r}", name)
    elif isinstance(result, tuple | list):
        for position, value in enumerate(result):
            yield from labelled(value, f"{label} {position}", name)
    else:
        raise TypeError(
            f"gradcheck of {name}: expected a Tensor, or a tuple, list or dict of Tensors, got "
            f"{type(result).__name__} for {label}"
        )
