"""The graph and what it is made of: `Tensor` and `Function`.

A Tensor is an array and, when gradients are wanted, a pointer to the Function that made it. A Function is a pair:
`forward` takes arrays and returns one array; `backward` takes the gradient of that result and returns the gradient of
each input. Applying a Function to Tensors runs `forward` and leaves the Function behind the result as a node:

    x (leaf) ──┐
               Multiply ──> Exp ──> y        y.node is the Exp; its parents are (Multiply,); Multiply's are (x, w)
    w (leaf) ──┘

Nodes point to nodes, never to results: what an operation does not save is freed as soon as the caller drops it.
`backward.py` walks this graph; `operations.py` holds the elementary operations and gives Tensor its operators.
"""

import weakref
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np

from ..device import device_of, is_on_gpu, refuse_mixture, to_device
from . import anomaly
from .modes import modes

_NUMBERS = frozenset((float, int, bool))

# Newer nodes have smaller numbers: the backward pass wants the newest first, and Python's heaps give the least.
_creation_order = count(0, -1).__next__


class Tensor:
    """An array that remembers how it was computed.

    data           the array: NumPy or CuPy, any dtype (gradients need float32 or float64)
    requires_grad  whether gradients flow to this Tensor
    grad           after `backward()`, on leaves: d output / d self, a Tensor of the same shape and dtype, summed over
                   calls until set to None. Gradients may share memory: treat them as read-only
    node           the Function that made it, None for a leaf

    `Tensor(x)` shares memory with x; `minidet.tensor(x)` copies it. Tensors are values: operations make new ones, and
    nothing but an optimiser writes into `data`.
    """

    __slots__ = ("__weakref__", "data", "grad", "hooks", "node", "requires_grad")
    __array_ufunc__ = None  # `array * tensor` asks the Tensor, instead of NumPy making an array of Tensors

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        if isinstance(data, Tensor):
            raise TypeError("Tensor: expected an array, got a Tensor; use x.detach() or x.clone()")
        if not hasattr(data, "__array_function__"):
            data = np.asarray(data)
        if data.dtype == object:
            raise TypeError("Tensor: expected numbers in a regular shape, got a ragged or non-numeric sequence")
        self.data = data.view()  # an array object of its own: the graph tells saved arrays apart by identity
        self.grad = self.node = self.hooks = None
        self.requires_grad = False
        if requires_grad:
            self.requires_grad_()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def device(self) -> str:
        """ "cpu" for an array of NumPy, "cuda" for one of CuPy."""
        return device_of(self.data)

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        """The number of elements (NumPy's meaning of the word; the lengths of the axes are `shape`)."""
        return self.data.size

    @property
    def is_leaf(self) -> bool:
        return self.node is None

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __float__(self) -> float:
        return float(self.data)

    def __int__(self) -> int:
        return int(self.data)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.requires_grad:
            raise TypeError(
                "expected an array, got a Tensor that requires grad; take its values out of the graph with x.data, "
                "or join Tensors with minidet.functional.stack or concatenate"
            )
        self._check_on_cpu()
        return np.array(self.data, dtype=dtype, copy=copy)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError(
            "Tensors are not written into: the backward pass needs the values of the forward pass as they were; "
            "build the result with where, concatenate or stack, or write into x.data outside the graph"
        )

    def __repr__(self) -> str:
        made = f", node={self.node.name}" if self.node is not None else ""
        wants = ", requires_grad=True" if self.requires_grad and self.node is None else ""
        values = to_device(self.data, "cpu")
        values = np.array2string(values, precision=4, threshold=100, separator=", ", prefix="tensor(")
        place = "" if self.device == "cpu" else f", device={self.device}"
        return f"tensor({values}, shape={self.shape}, dtype={self.dtype}{place}{wants}{made})"

    def requires_grad_(self, requires_grad: bool = True) -> "Tensor":
        """Sets, on a leaf, whether gradients are wanted. Returns self."""
        if self.node is not None:
            raise RuntimeError("requires_grad_: expected a leaf, got the result of an operation; use x.detach() first")
        if requires_grad and self.data.dtype not in (np.float32, np.float64):
            raise TypeError(
                f"requires_grad: expected float32 or float64, got {self.data.dtype}; convert with x.astype(np.float32)"
            )
        self.requires_grad = requires_grad
        return self

    def numpy(self) -> np.ndarray:
        """The array itself, outside the graph (it shares memory with the Tensor). TypeError for one on the GPU."""
        self._check_on_cpu()
        return self.data

    def _check_on_cpu(self) -> None:
        if self.device != "cpu":
            raise TypeError(
                f"expected a Tensor on the CPU, got {self.shape} on {self.device}; a copy for NumPy is x.cpu().numpy()"
            )

    def item(self) -> float:
        """The value of a Tensor of one element, as a Python number."""
        return self.data.item()

    def detach(self) -> "Tensor":
        """The same values, seen as a constant: no gradient flows through the result."""
        return Tensor(self.data)

    def register_hook(self, hook: Callable[["Tensor"], "Tensor | None"]) -> Callable[[], None]:
        """Calls hook(grad) with this Tensor's gradient, a Tensor, when the backward pass has it complete; what the
        hook returns, if anything, replaces the gradient. Returns a function that removes the hook."""
        if not self.requires_grad:
            raise RuntimeError("register_hook: expected a Tensor that requires grad, got one that does not")
        owner = self if self.node is None else self.node
        if owner.hooks is None:
            owner.hooks = []
        owner.hooks.append(hook)
        return lambda: owner.hooks.remove(hook)

    def retain_grad(self) -> None:
        """Keeps `.grad` on this Tensor although it is the result of an operation."""
        if self.node is not None:
            this = weakref.ref(self)  # the graph keeps the hook, and must not keep its own result alive
            self.register_hook(lambda grad: setattr(this(), "grad", grad) if this() is not None else None)


class Function:
    """One differentiable operation. Subclass it, write `forward` and `backward`, call it with `apply`.

    >>> class Cube(Function):
    ...     def forward(self, x):
    ...         self.save(x)
    ...         return x**3
    ...
    ...     def backward(self, grad, x):
    ...         return 3 * x**2 * grad
    >>> y = Cube.apply(tensor([1.0, 2.0], requires_grad=True))

    forward(self, *inputs, **options) -> array
        Gets the inputs' arrays (and numbers as they are). `self.save(...)` keeps arrays for the backward pass; what is
        not to be differentiated (sizes, indices, masks) may simply be stored on `self`.
    backward(self, grad, *saved) -> one gradient an input, or None where there is none
        Each gradient has the shape and dtype of its input. In an ordinary backward pass `grad` and `saved` are arrays
        and the rule runs as plain NumPy; under `create_graph=True` they are Tensors and the same lines are recorded,
        which is all that second derivatives need: write the rule with operators, array methods and functions of
        `minidet.functional`, which take both. `self.needs[i]` says whether input i wants a gradient at all.

    A saved array counts as differentiable when it is an input or the output of `forward` itself. What was computed in
    between is a constant to the second derivative: recompute it from an input inside `backward`.
    """

    # Set by `apply`: needs, parents (one an input, None for a constant), and for a node of the graph order (less than
    # its parents' orders), shape and dtype (of the result), identity (the result's `id`, to recognise it where it was
    # saved). As slots they are quicker to set; `__dict__` takes whatever else a forward stores on self.
    __slots__ = ("__dict__", "__weakref__", "dtype", "identity", "needs", "order", "parents", "shape")
    saved: tuple | None = ()  # what forward kept; None once a backward pass has freed the graph
    hooks: list | None = None

    # True for operations that broadcast their inputs (element by element, or the axes before a matrix product): their
    # gradients come back in the broadcast shape and the promoted dtype, and the backward pass sums and casts them to
    # each input's own.
    broadcasts = False

    def forward(self, *inputs: Any, **options: Any) -> Any:
        raise TypeError(f"{self.name}: a Function must define forward(self, *inputs, **options)")

    def backward(self, grad: Any, *saved: Any) -> Any:
        raise TypeError(f"{self.name}: a Function must define backward(self, grad, *saved) to be differentiated")

    def save(self, *arrays: Any) -> None:
        """Keeps arrays of the forward pass; `backward` receives them, in this order, after `grad`."""
        self.saved = arrays

    def saved_in_graph(self) -> list:
        """What was saved, for a backward pass that is recorded: Tensors tied to the graph where an array was an input
        or the output, bare arrays otherwise."""
        made_by = {}
        for node in (self, *self.parents) if self.saved else ():
            if node is not None:
                made_by[id(node.data) if isinstance(node, Tensor) else node.identity] = node
        return [tied(array, made_by.get(id(array))) for array in self.saved]

    @property
    def name(self) -> str:
        return type(self).__name__

    @classmethod
    def apply(cls, *inputs: Any, **options: Any) -> Any:
        """Runs the operation: Tensors in, Tensor out. With no Tensor among the inputs it is a plain array function."""
        function = cls()
        function.parents = parents = []
        function.needs = needs = []
        arrays = []
        any_tensor = any_parent = False
        for x in inputs:  # one plain loop: this is what every operation of every network costs
            if isinstance(x, Tensor):
                any_tensor = True
                arrays.append(x.data)
                if x.requires_grad:
                    any_parent = True
                    parents.append(x.node or x)
                    needs.append(True)
                    continue
            elif isinstance(x, np.generic):
                arrays.append(x.item())  # see `constant`
            else:  # x.data as a constant must not be taken for x where it was saved: an array object of its own too
                arrays.append(x if x.__class__ in _NUMBERS or not hasattr(x, "view") else x.view())
            parents.append(None)
            needs.append(False)

        if not any_tensor:
            arrays = inputs  # NumPy scalars too: in a backward pass they are the gradients of arrays without axes
        try:
            data = function.forward(*arrays, **options) if options else function.forward(*arrays)
        except TypeError as error:  # what CuPy says of a mixture
            refuse_mixture(function.name, (*arrays, *options.values()), error)
            raise
        if data.__class__ is not np.ndarray:
            data = one_array(data, function)
        for array in arrays:
            if array is data:  # each Tensor has an array object of its own, by which the graph knows it
                data = data.view()
        if modes.detecting_anomalies:
            anomaly.check_forward(function, data, arrays)
        if not any_tensor:
            return data

        output = Tensor.__new__(Tensor)
        output.data = data
        output.grad = output.hooks = None
        if any_parent and modes.recording:
            output.requires_grad = True
            output.node = function
            function.order = _creation_order()
            function.shape = data.shape
            function.dtype = data.dtype
            function.identity = id(data)
        else:
            output.requires_grad = False
            output.node = None
        return output


def parent_of(x: Any) -> "Function | Tensor | None":
    """How the graph knows an input: by the Function that made it, a leaf by itself, a constant not at all."""
    if isinstance(x, Tensor) and x.requires_grad:
        return x if x.node is None else x.node
    return None


def tied(array: Any, made_by: "Function | Tensor | None") -> Any:
    """The array as the Tensor that the graph knows it by; itself when it is a constant."""
    if made_by is None or isinstance(made_by, Tensor):
        return array if made_by is None else made_by
    result = Tensor(array)
    result.requires_grad, result.node = True, made_by
    return result


def array_of(x: Any) -> Any:
    """The bare array of a Tensor; anything else as it is."""
    return x.data if isinstance(x, Tensor) else x


def constant(x: Any) -> Any:
    """An input that is not a Tensor: an array or a number. NumPy scalars become Python numbers, which adopt the
    Tensor's dtype: `x * np.sqrt(2)` must not silently turn a float32 network into float64."""
    return x.item() if isinstance(x, np.generic) else x


def one_array(result: Any, function: Function) -> Any:
    """What forward returned, as an array: NumPy gives scalars for arrays without axes; CuPy's arrays pass."""
    if isinstance(result, np.generic):
        array = np.asarray(result)
        function.saved = tuple(array if x is result else x for x in function.saved)
        return array
    if isinstance(result, Tensor) or not hasattr(result, "__array_function__"):
        raise TypeError(
            f"{function.name}.forward: expected one array, got {type(result).__name__}; "
            "compute on arrays and return one (stack several results, or write one Function for each)"
        )
    return result


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False, device: str | None = None) -> Tensor:
    """A Tensor with a copy of `data`: nested lists, numbers or an array. Python floats become float32.

    device: "cpu" or "cuda"; by default an array stays where it is, and all else goes to the CPU."""
    if dtype is None and not hasattr(data, "dtype") and np.asarray(data).dtype == np.float64:
        dtype = np.float32
    array = data.data if isinstance(data, Tensor) and not data.requires_grad else data
    array = array.astype(dtype or array.dtype) if is_on_gpu(array) else np.array(array, dtype=dtype)
    return Tensor(array if device is None else to_device(array, device), requires_grad)
