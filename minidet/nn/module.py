"""Module: a part of a network with parameters, buffers and parts of its own; torch.nn.Module's names and state_dict."""

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..device import DEVICES, on_device_of, to_device


class Parameter(Tensor):
    """A Tensor that a Module trains: assigned as an attribute it is found by `parameters()` and `state_dict()`."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)


class Module:
    """Subclass it, assign Parameters and Modules as attributes in `__init__`, write `forward`, call the instance.

    >>> class Head(Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.fc = Linear(64, 6)
    ...
    ...     def forward(self, features):
    ...         return self.fc(features)

    state_dict keys are the paths of attributes ("fc.weight"), as in torch, so that its weights load here.
    """

    def __init__(self) -> None:
        self.training = True
        self._parameters: dict[str, Parameter] = {}
        self._buffers: dict[str, Any] = {}
        self._modules: dict[str, Module] = {}
        self._hooks: list[Callable] = []
        self._place: tuple[weakref.ref[Module], str] | None = None  # the Module this one is a part of, and its name

    def forward(self, *inputs: Any, **options: Any) -> Any:
        raise TypeError(f"{type(self).__name__}: a Module must define forward")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        output = self.forward(*inputs, **options)
        for hook in list(self._hooks):
            replaced = hook(self, inputs, output)
            output = output if replaced is None else replaced
        return output

    def register_forward_hook(self, hook: Callable) -> Callable[[], None]:
        """Calls hook(module, inputs, output) after every forward; what it returns, if anything, replaces the output.
        Returns a function that removes the hook."""
        self._hooks.append(hook)
        return lambda: self._hooks.remove(hook)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter | Module) and "_modules" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before assigning {name!r}")
        if type(value) is Tensor and name in self.__dict__.get("_parameters", {}):
            raise TypeError(
                f"{type(self).__name__}: expected a Parameter or None for {name!r}, got a Tensor, which would not be "
                f"trained; use nn.Parameter(x.data), or write into {name}.data"
            )
        for kind in ("_parameters", "_modules"):
            self.__dict__.get(kind, {}).pop(name, None)
        if isinstance(value, Parameter):
            self._parameters[name] = value
        elif isinstance(value, Module):
            self._modules[name] = value
            if value._place is None or value._place[0]() is None:  # a slice of a Sequential is not a new home
                value._place = (weakref.ref(self), name)
        elif name in self.__dict__.get("_buffers", {}):
            self._buffers[name] = value
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        for kind in (self._parameters, self._modules, self._buffers):
            kind.pop(name, None)

    def register_buffer(self, name: str, array: Any) -> None:
        """An array that belongs to the state but is not trained (batch norm's running mean). Write into it in place,
        or assign a new one to the attribute."""
        self._buffers[name] = array
        object.__setattr__(self, name, array)

    @property
    def path(self) -> str:
        """Where this Module sits in the whole network ("backbone.0"), for messages; empty for the outermost."""
        if self._place is None or self._place[0]() is None:
            return ""
        parent, name = self._place[0](), self._place[1]
        return f"{parent.path}.{name}" if parent.path else name

    @property
    def title(self) -> str:
        """The kind and the path: `Conv2d 'rpn.conv'`."""
        return f"{type(self).__name__} {self.path!r}" if self.path else type(self).__name__

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """(path, Module) of this Module, path "", and of all its parts, in the order of assignment."""
        yield prefix, self
        for name, module in self._modules.items():
            yield from module.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator["Module"]:
        """This Module and all its parts."""
        return (module for _, module in self.named_modules())

    def children(self) -> Iterator["Module"]:
        """The direct parts."""
        return iter(self._modules.values())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(path, Parameter), each Parameter once, even where it is shared."""
        seen = set()
        for path, module in self.named_modules():
            for name, parameter in module._parameters.items():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield (f"{path}.{name}" if path else name), parameter

    def parameters(self) -> Iterator[Parameter]:
        """All Parameters, each once."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Any]]:
        """(path, array) of all buffers."""
        for path, module in self.named_modules():
            for name, array in module._buffers.items():
                yield (f"{path}.{name}" if path else name), array

    def state_dict(self) -> dict[str, Any]:
        """The arrays of all parameters and buffers by path (not copies: save or copy them before training on)."""
        state = {}
        for path, module in self.named_modules():
            entries = [(name, parameter.data) for name, parameter in module._parameters.items()]
            for name, array in entries + list(module._buffers.items()):
                state[f"{path}.{name}" if path else name] = array
        return state

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        """Copies arrays into parameters and buffers by path, to their device and dtype. Nothing is changed unless every
        shape fits; with strict, every key must be there and no other, else ValueError lists what is not."""
        mine = self.state_dict()
        missing = [key for key in mine if key not in state]
        extra = [key for key in state if key not in mine]
        misshapen = [
            f"{key}: expected {array.shape}, got {np.shape(state[key])}"
            for key, array in mine.items()
            if key in state and array.shape != np.shape(state[key])
        ]
        if misshapen or (strict and (missing or extra)):
            problems = [("missing keys", missing), ("unexpected keys", extra), ("wrong shapes", misshapen)]
            told = "; ".join(
                f"{what}: {', '.join(keys[:8])}{', ...' * (len(keys) > 8)}" for what, keys in problems if keys
            )
            raise ValueError(f"load_state_dict: the state does not fit this {type(self).__name__}: {told}")
        for key, array in state.items():
            if key in mine:
                mine[key][...] = on_device_of(array, mine[key])

    def train(self, mode: bool = True) -> "Module":
        """Training behaviour (batch statistics, dropout) for this Module and its parts. Returns self."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> "Module":
        """Evaluation behaviour: the same input gives the same output."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> "Module":
        """Freezes (False) or frees all parameters. Returns self."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self) -> None:
        """Forgets the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    @property
    def device(self) -> str:
        """Where the parameters lie, "cpu" or "cuda"; "cpu" for a Module without any."""
        return next((parameter.device for parameter in self.parameters()), "cpu")

    def cpu(self) -> "Module":
        """Parameters and buffers on the CPU. Returns self."""
        return self.to("cpu")

    def cuda(self) -> "Module":
        """Parameters and buffers on the GPU. Returns self."""
        return self.to("cuda")

    def to(self, target: Any) -> "Module":
        """Parameters and buffers on "cpu" or "cuda"; or those of floats in another dtype, np.float32 or np.float64.

        Gradients are forgotten. Make the optimiser afterwards: its state lies where the parameters are. Returns self.
        """
        for module in self.modules():
            for parameter in module._parameters.values():
                parameter.data, parameter.grad = _converted(parameter.data, target), None
            for name, array in list(module._buffers.items()):
                setattr(module, name, _converted(array, target))
        return self

    def __repr__(self) -> str:
        parts = [f"({name}): {module!r}".replace("\n", "\n  ") for name, module in self._modules.items()]
        inside = "\n  " + "\n  ".join(parts) + "\n" if parts else self.describe()
        return f"{type(self).__name__}({inside})"

    def describe(self) -> str:
        """What to print between the brackets of a Module without parts."""
        return ""


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Within it the model is in evaluation mode; afterwards each part is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def forward_hooks(hooks: Iterable[tuple[Module, Callable]]) -> Iterator[None]:
    """Within it every (module, hook) is registered: see Module.register_forward_hook. They are for this thread's
    calls: what another one computes with the same network meanwhile is not theirs to see or to replace."""
    owner = threading.get_ident()

    def of_owner(hook: Callable) -> Callable:
        return lambda *call: hook(*call) if threading.get_ident() == owner else None

    removers = [module.register_forward_hook(of_owner(hook)) for module, hook in hooks]
    try:
        yield
    finally:
        for remove in removers:
            remove()


def _converted(array: Any, target: Any) -> Any:
    if isinstance(target, str) and target in DEVICES:
        return to_device(array, target)
    try:
        dtype = np.dtype(target) if target is not None else None  # None would be float64 to NumPy
    except TypeError:
        dtype = None
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"to: expected np.float32, np.float64, 'cpu' or 'cuda', got {target!r}")
    return array.astype(dtype) if array.dtype.kind == "f" else array


class Sequential(Module):
    """Modules one after the other; `network[2]` is the third, `network[:4]` the first four as a Sequential."""

    def __init__(self, *modules: Module) -> None:
        super().__init__()
        for position, module in enumerate(modules):
            setattr(self, str(position), module)

    def forward(self, x: Any) -> Any:
        for module in self._modules.values():
            x = module(x)
        return x

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __getitem__(self, key: int | slice) -> Module:
        modules = list(self._modules.values())
        return Sequential(*modules[key]) if isinstance(key, slice) else modules[key]


class ModuleList(Module):
    """A list of Modules whose parameters are found; it has no forward of its own."""

    def __init__(self, modules: Any = ()) -> None:
        super().__init__()
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> "ModuleList":
        """Adds a Module at the end. Returns self."""
        setattr(self, str(len(self._modules)), module)
        return self

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __getitem__(self, position: int) -> Module:
        return list(self._modules.values())[position]
