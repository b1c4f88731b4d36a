"""Optimisers: SGD with momentum, Adam, AdamW, with torch.optim's rules and defaults.

Each keeps its state as arrays by name, so that a checkpoint holds all of it. `lr`, the learning rate, may be set
between steps, which is what a schedule does.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from .autograd import Tensor
from .device import device_of, is_on_gpu, on_device_of

# Elements updated at a time: 128 kB of float32. Adam holds about six such arrays, and larger ones leave the cache.
BLOCK = 1 << 15


class Optimizer:
    """Updates parameters in place from their gradients; parameters without a gradient are left alone.

    params: Tensors, or (name, Tensor) pairs as `model.named_parameters()` gives; the names then name the state.
    """

    slots: tuple[str, ...] = ()  # the arrays kept for each parameter

    def __init__(self, params: Iterable, lr: float, weight_decay: float = 0.0) -> None:
        entries = list(params.items() if isinstance(params, dict) else params)
        named = [entry if isinstance(entry, tuple) else (str(i), entry) for i, entry in enumerate(entries)]
        self.parameters: dict[str, Tensor] = dict(named)
        if not self.parameters or len(self.parameters) < len(named):
            raise ValueError(
                f"{type(self).__name__}: expected parameters with distinct names, got {len(named)} entries"
            )
        if lr < 0 or weight_decay < 0:
            raise ValueError(
                f"{type(self).__name__}: expected lr and weight_decay of at least 0, got {lr} and {weight_decay}"
            )
        self.lr, self.weight_decay = lr, weight_decay
        self.steps = dict.fromkeys(self.parameters, 0)  # updates of each parameter: a frozen one does not count
        self.state = {
            name: {slot: np.zeros_like(parameter.data) for slot in self.slots}
            for name, parameter in self.parameters.items()
        }

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def step(self) -> None:
        """One update of every parameter that has a gradient and is not frozen."""
        for name, parameter in self.parameters.items():
            if parameter.grad is not None and parameter.requires_grad:
                self._check_device(name, parameter)
                self.steps[name] += 1
                self._update_in_blocks(parameter.data, parameter.grad.data, self.steps[name], self.state[name])

    def _check_device(self, name: str, parameter: Tensor) -> None:
        for array in self.state[name].values():
            if device_of(array) != parameter.device:
                raise TypeError(
                    f"{type(self).__name__}: expected {name!r} on {device_of(array)}, where it was when this optimiser "
                    f"was made, got it on {parameter.device}; make the optimiser after model.to({parameter.device!r})"
                )

    def _update_in_blocks(self, weights: Any, grad: Any, step: int, state: dict[str, Any]) -> None:
        """Blocks small enough that all the temporary arrays of an update stay in the cache: twice as fast. On the GPU
        a block would be a launch."""
        if weights.size <= BLOCK or is_on_gpu(weights) or not weights.flags.c_contiguous:
            return self.update(weights, grad, step, **state)
        weights, grad = weights.reshape(-1), grad.reshape(-1)
        state = {slot: array.reshape(-1) for slot, array in state.items()}
        for start in range(0, weights.size, BLOCK):
            block = slice(start, start + BLOCK)
            self.update(weights[block], grad[block], step, **{slot: array[block] for slot, array in state.items()})

    def update(self, weights: Any, grad: Any, step: int, **state: Any) -> None:
        """Writes the new weights, and the new state, in place. step: updates of this parameter, this one included."""
        raise TypeError(f"{type(self).__name__}: an Optimizer must define update(self, weights, grad, step, **state)")

    def state_dict(self) -> dict[str, Any]:
        """Arrays by "slot/parameter", and the numbers "steps/parameter" and "lr"."""
        arrays = {f"{slot}/{name}": state[slot] for name, state in self.state.items() for slot in state}
        return {"lr": self.lr, **{f"steps/{name}": count for name, count in self.steps.items()}, **arrays}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what state_dict gave; the parameters must be the same ones. Nothing is changed unless all fits."""
        mine = self.state_dict()
        if set(mine) != set(state):
            differing = sorted(set(mine) ^ set(state))
            raise ValueError(
                f"{type(self).__name__}: expected the state of the same parameters; differing: {differing[:8]}"
            )
        misshapen = [
            f"{key}: expected {np.shape(mine[key])}, got {np.shape(state[key])}"
            for key in mine
            if np.shape(mine[key]) != np.shape(state[key])
        ]
        if misshapen:
            raise ValueError(f"{type(self).__name__}: the state is of other parameters: {', '.join(misshapen[:8])}")
        self.lr = float(state["lr"])
        self.steps = {name: int(state[f"steps/{name}"]) for name in self.steps}
        for name, slots in self.state.items():
            for slot, array in slots.items():
                array[...] = on_device_of(state[f"{slot}/{name}"], array)


class SGD(Optimizer):
    """v = momentum * v + grad;  w = w - lr * v.  Weight decay is added to the gradient (l2 penalty).

    nesterov looks ahead: the step is grad + momentum * v (Sutskever et al. 2013).
    """

    slots = ("velocity",)

    def __init__(
        self,
        params: Iterable,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self.momentum, self.nesterov = momentum, nesterov

    def update(self, weights: Any, grad: Any, step: int, velocity: Any) -> None:
        grad = grad + self.weight_decay * weights if self.weight_decay else grad
        velocity *= self.momentum
        velocity += grad
        weights -= self.lr * (grad + self.momentum * velocity if self.nesterov else velocity)


class Adam(Optimizer):
    """Kingma and Ba 2015, algorithm 1. m and v are running means of the gradient and of its square, corrected for
    their start at 0; the step is lr * m / (sqrt(v) + eps). Weight decay is added to the gradient."""

    slots = ("mean", "square")
    decoupled = False

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self.betas, self.eps = betas, eps

    def update(self, weights: Any, grad: Any, step: int, mean: Any, square: Any) -> None:
        if self.weight_decay and self.decoupled:
            weights *= 1 - self.lr * self.weight_decay
        elif self.weight_decay:
            grad = grad + self.weight_decay * weights
        first, second = self.betas
        mean += (1 - first) * (grad - mean)
        square *= second
        square += (1 - second) * grad * grad
        rate = self.lr / (1 - first**step)
        weights -= rate * mean / (np.sqrt(square) / (1 - second**step) ** 0.5 + self.eps)


class AdamW(Adam):
    """Adam whose weight decay shrinks the weights directly, not through the gradient (Loshchilov and Hutter 2019)."""

    decoupled = True

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
