"""One step of training: losses, gradients, update. A step that is not finite is refused and explained."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from minidet import watch
from minidet.autograd import AnomalyError, Tensor, detect_anomaly
from minidet.device import read
from minidet.random import generator

NAMES_SHOWN = 8  # images of a refused batch that the report lists


class RefusedStepError(FloatingPointError):
    """A step whose loss or gradient was not finite, and so was not taken. The message is the report."""


def take_step(model: Any, optimizer: Any, batch: Any, clip_norm: float) -> dict[str, float]:
    """Trains on one batch and returns the named losses.

    batch: as the Loader gives it; its images go to the model's device, its targets stay on the CPU.
    clip_norm: the greatest length of the gradient, 0 for any.
    On a GPU the host waits once, to read the losses and the length of the gradient.
    Raises RefusedStepError if a loss or the gradient is NaN or infinite; parameters and buffers are then as before, and
    the gradients dropped.
    """
    random_state = generator().bit_generator.state
    buffers = [(array, array.copy()) for _, array in model.named_buffers()]  # the forward pass moves averages
    optimizer.zero_grad()
    with np.errstate(all="ignore"):  # what overflows here is explained below, better than a warning could
        with watch.pictures(batch.names):
            losses = model(as_tensors(batch.images, model.device), batch.targets)
        total = sum_losses(losses)
        total.backward()
        *values, total_value, norm = read_losses(losses, total, optimizer.parameters.values())
        values = dict(zip(losses, values, strict=True))
    if not math.isfinite(total_value) or not math.isfinite(norm):
        generator().bit_generator.state = random_state  # the same dropout again
        explained = _explain(model, batch, values)
        for array, before in buffers:
            array[...] = before
        optimizer.zero_grad()
        raise RefusedStepError(explained)
    clip_gradients(optimizer.parameters.values(), clip_norm, norm)
    optimizer.step()
    return values


def as_tensors(images: Any, device: str) -> Any:
    """A batch's images, one array or a list of arrays, as Tensors on the device."""
    if isinstance(images, list):
        return [Tensor(image).to(device) for image in images]
    return Tensor(images).to(device)


def sum_losses(losses: dict[str, Tensor]) -> Tensor:
    """What is minimised: the sum of all named losses."""
    if not isinstance(losses, dict) or not losses:
        raise TypeError(f"expected model(images, targets) to return a dict of named losses, got {losses!r:.80}")
    return sum(list(losses.values())[1:], start=next(iter(losses.values())))


def read_losses(losses: dict[str, Tensor], total: Tensor, parameters: Iterable[Tensor]) -> list[float]:
    """The values of the losses and of their sum, then the length of the gradient of all parameters together."""
    scalars = [loss.data for loss in losses.values()] + [total.data]
    values = read(scalars + squared_lengths(parameters))
    return [*values[: len(scalars)], math.sqrt(sum(values[len(scalars) :]))]


def squared_lengths(parameters: Iterable[Tensor]) -> list[Any]:
    """The squared length of each gradient that there is, where it lies."""
    gradients = [parameter.grad.data for parameter in parameters if parameter.grad is not None]
    return [np.vdot(gradient, gradient) for gradient in gradients]


def clip_gradients(parameters: Iterable[Tensor], clip_norm: float, norm: float | None = None) -> float:
    """Shortens the gradient of all parameters together to length clip_norm (Pascanu et al. 2013, algorithm 1).

    Returns the length before, which is read from the gradients where `norm` does not say it. Gradients may share memory
    with others, so shortened ones are new arrays.
    """
    parameters = list(parameters)
    norm = math.sqrt(sum(read(squared_lengths(parameters)))) if norm is None else norm
    if 0 < clip_norm < norm < math.inf:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = Tensor(parameter.grad.data * parameter.grad.dtype.type(clip_norm / norm))
    return norm


def _explain(model: Any, batch: Any, values: dict[str, float]) -> str:
    """Runs the batch again with every result checked, and tells which operation made the first bad value where."""
    found = "none when repeated one operation at a time: only the sum of the losses or gradients overflows"
    heard: list[watch.Event] = []
    with np.errstate(all="ignore"), detect_anomaly(), watch.pictures(batch.names), watch.listen(heard.append):
        try:
            sum_losses(model(as_tensors(batch.images, model.device), batch.targets)).backward()
        except AnomalyError as anomaly:
            found = str(anomaly)
    losses = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    names = ", ".join(batch.names[:NAMES_SHOWN]) + (", ..." if len(batch.names) > NAMES_SHOWN else "")
    results = ", ".join(f"{event.name} {event.shape or ''}" for event in heard)
    return (
        f"the loss or its gradient is not finite ({losses}); the step was refused\n"
        f"first non-finite value: {found}\n"
        f"the model's results before it: {results or 'none watched'}\n"
        f"images of the batch: {names}"
    )
