"""The backward pass: reverse-mode differentiation of the graph that the forward pass left.

With y = f_n(...f_2(f_1(x))), the chain rule from the output back multiplies, at each node, the gradient of y with
respect to its result by the node's Jacobian. Every node is visited once, after all nodes that use its result: the order
of creation, reversed, is such an order, and a queue that gives out its newest node keeps it. A result used twice
receives the sum of both gradients.

An ordinary pass works on bare arrays. With create_graph=True the same rules run on Tensors and are recorded, so that
the gradient is a differentiable function itself.
"""

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from operator import attrgetter
from typing import Any

import numpy as np

from ..device import device_of
from . import anomaly
from .modes import enable_grad, modes, no_grad
from .operations import cast, sum_to
from .tensor import Function, Tensor, array_of, parent_of


def backward(
    output: Tensor, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False
) -> None:
    """Adds d output / d leaf to the `grad` of every leaf that requires it.

    gradient      the cotangent: d L / d output, same shape as output; may be left out for an output of one element (1)
    retain_graph  keep what the graph saved, to go through it again; default: as create_graph
    create_graph  record the backward pass, so that the gradients can be differentiated again
    """
    if not output.requires_grad:
        raise RuntimeError(
            "backward: expected an output that depends on a leaf with requires_grad=True, got one that does not; "
            "was it made under no_grad, or from data only?"
        )
    if not create_graph and hasattr(gradient, "dtype"):
        gradient = array_of(gradient).copy()  # the caller's own: a leaf's `grad` may be a view of it
    found = _propagate([output], [gradient], retain_graph, create_graph, targets=None)
    with enable_grad() if create_graph else no_grad():
        for leaf, part in found.items():
            if not isinstance(part, Tensor):
                part = Tensor(part)
            elif part.is_leaf:  # the caller's own cotangent, perhaps: `grad` must not change with it
                part = part.clone()
            leaf.grad = part if leaf.grad is None else leaf.grad + part
            if isinstance(leaf.grad.data, np.ndarray):
                leaf.grad.data.flags.writeable = False  # its memory may be that of another gradient too


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """d outputs / d inputs, contracted with grad_outputs, as a tuple with one Tensor an input; no `.grad` is touched.

    Inputs may be leaves or any Tensor in the graph. An input that the outputs do not depend on is an error, or None
    with allow_unused=True.
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if grad_outputs is None or isinstance(grad_outputs, Tensor) or hasattr(grad_outputs, "dtype"):
        grad_outputs = [grad_outputs] * len(outputs) if grad_outputs is None else [grad_outputs]
    if len(grad_outputs) != len(outputs):
        raise ValueError(f"grad: expected {len(outputs)} grad_outputs, one an output, got {len(grad_outputs)}")
    for position, x in enumerate(inputs):
        if not x.requires_grad:
            raise RuntimeError(f"grad: expected inputs that require grad, but input {position} does not")
    found = _propagate(outputs, grad_outputs, retain_graph, create_graph, targets=[parent_of(x) for x in inputs])
    results = []
    for position, x in enumerate(inputs):
        if parent_of(x) in found:
            gradient = found[parent_of(x)]
            results.append(gradient if isinstance(gradient, Tensor) else Tensor(gradient))
        elif allow_unused:
            results.append(None)
        else:
            raise RuntimeError(
                f"grad: the outputs do not depend on input {position} (shape {x.shape}); allow_unused=True gives None"
            )
    return tuple(results)


def _propagate(
    outputs: list[Tensor],
    cotangents: Sequence[Any],
    retain_graph: bool | None,
    create_graph: bool,
    targets: list | None,
) -> dict[Any, Any]:
    """Walks the graph backwards from the outputs. Returns {leaf, or target node: its gradient}."""
    retain_graph = create_graph if retain_graph is None else retain_graph
    grads: dict[Any, Any] = {}  # node or leaf -> the gradient collected so far
    for output, cotangent in zip(outputs, cotangents, strict=True):
        root = parent_of(output)
        if root is not None:
            seed = _seed(output, cotangent, create_graph)
            grads[root] = grads[root] + seed if root in grads else seed

    # The newest node first, which has the least order: by then, all nodes that use its result have handed their
    # gradients down.
    queue = [(root.order, root) for root in grads if isinstance(root, Function)]
    heapify(queue)
    wanted = None if targets is None else set(targets)
    leading = None if targets is None else _leading_to(wanted, queue)
    found: dict[Any, Any] = {}
    recorded_before, checking = modes.recording, modes.detecting_anomalies
    modes.recording = create_graph
    try:
        while queue:
            node = heappop(queue)[1]
            gradient = grads.pop(node)
            # Off the way to the targets, parts of the gradient are left out: hooks are to see it whole.
            if node.hooks and (leading is None or node in leading or node in wanted):
                gradient = _run_hooks(node.hooks, gradient, create_graph)
            if wanted is not None and node in wanted:
                found[node] = gradient
            if leading is None or node in leading:
                _step(node, gradient, grads, queue, create_graph, checking)
            if not retain_graph:
                node.saved = node.parents = None
        for leaf, gradient in grads.items():
            if wanted is None or leaf in wanted:
                found[leaf] = _run_hooks(leaf.hooks, gradient, create_graph) if leaf.hooks else gradient
    finally:
        modes.recording = recorded_before
    return found


def _step(node: Function, gradient: Any, grads: dict, queue: list, create_graph: bool, checking: bool) -> None:
    """One node: calls its rule, adds what it returns to the gradients of its parents, and queues those it reaches."""
    parents = node.parents
    if parents is None:
        raise RuntimeError(_freed(node))
    try:
        results = node.backward(gradient, *(node.saved_in_graph() if create_graph else node.saved))
    except anomaly.AnomalyError as error:
        raise anomaly.inside_backward(node, error) from error
    if results.__class__ is not tuple:
        results = (results,)
    if len(results) != len(parents):
        raise ValueError(
            f"{node.name}.backward: expected {len(parents)} gradients, one an input, got {len(results)}; "
            "return None for an input without a gradient"
        )
    if checking:
        anomaly.check_backward(node, [array_of(result) for result in results], array_of(gradient))
    for parent, result in zip(parents, results):  # noqa: B905 (the lengths were compared above; this loop is hot)
        if parent is None or result is None:
            continue
        collected = grads.get(parent)
        like = parent if collected is None else collected
        try:
            fits = result.shape == like.shape and result.dtype is like.dtype
        except AttributeError:
            told = f"expected arrays or None, got {type(result).__name__}: {result!r}"
            raise TypeError(f"{node.name}.backward: {told}") from None
        if not fits:
            result = _fitted(node, result, parent)
        if collected is not None:
            grads[parent] = collected + result
            continue
        grads[parent] = result
        if isinstance(parent, Function):
            heappush(queue, (parent.order, parent))


def _fitted(node: Function, result: Any, parent: Function | Tensor) -> Any:
    """The gradient in its input's shape and dtype: summed and cast if the operation broadcasts, checked otherwise."""
    if node.broadcasts:
        summed = sum_to(result, parent.shape)
        return summed if summed.dtype == parent.dtype else cast(summed, parent.dtype)
    if result.shape != parent.shape or result.dtype != parent.dtype:
        position = next(i for i, p in enumerate(node.parents) if p is parent)
        raise ValueError(
            f"{node.name}.backward: expected the gradient of input {position} to have its shape and "
            f"dtype, {parent.shape} {parent.dtype}, got {result.shape} {result.dtype}"
        )
    return result


def _freed(node: Function) -> str:
    return (
        f"backward: this graph was freed: {node.name} has already been differentiated, and what it saved is gone; "
        "pass retain_graph=True the first time, or run the forward pass again"
    )


def _leading_to(targets: set, roots: list[tuple[int, Function]]) -> set[Function]:
    """The nodes behind the roots that have a target among their ancestors: the others need no backward step."""
    seen = {node for _, node in roots}
    stack = list(seen)
    while stack:
        node = stack.pop()
        if node.parents is None:
            raise RuntimeError(_freed(node))
        fresh = {parent for parent in node.parents if isinstance(parent, Function)} - seen
        seen |= fresh
        stack.extend(fresh)
    leading: set[Function] = set()
    for node in sorted(seen, key=attrgetter("order"), reverse=True):  # parents before children
        if any(parent in targets or parent in leading for parent in node.parents):
            leading.add(node)
    return leading


def _seed(output: Tensor, cotangent: Any, create_graph: bool) -> Any:
    """The gradient that the pass starts from: a Tensor when it will be recorded, a bare array otherwise."""
    if cotangent is None:
        if output.size != 1:
            raise ValueError(
                f"backward: expected an output of one element, got shape {output.shape}; pass gradient=..., the "
                "derivative of your loss with respect to this output"
            )
        cotangent = np.ones_like(output.data)
    array = array_of(cotangent)
    if getattr(array, "shape", None) != output.shape or array.dtype != output.dtype:
        got = f"{array.shape} {array.dtype}" if hasattr(array, "dtype") else repr(array)
        raise ValueError(f"backward: expected a gradient of {output.shape} {output.dtype}, got {got}")
    if device_of(array) != output.device:
        raise TypeError(
            f"backward: expected a gradient on {output.device}, as the output, got one on {device_of(array)}; "
            f"use gradient.to({output.device!r})"
        )
    if not create_graph:
        return array
    return cotangent if isinstance(cotangent, Tensor) else Tensor(cotangent)


def _run_hooks(hooks: list, gradient: Any, create_graph: bool) -> Any:
    for hook in list(hooks):
        replaced = hook(gradient if create_graph else Tensor(gradient))
        if replaced is None:
            continue
        if not isinstance(replaced, Tensor) or (replaced.shape, replaced.dtype) != (gradient.shape, gradient.dtype):
            got = f"{replaced.shape} {replaced.dtype}" if isinstance(replaced, Tensor) else type(replaced).__name__
            raise ValueError(f"hook: expected None or a Tensor of {gradient.shape} {gradient.dtype}, got {got}")
        gradient = replaced if create_graph else replaced.data
    return gradient
