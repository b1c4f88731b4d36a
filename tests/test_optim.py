"""Optimisers: twenty steps along torch's trajectory, first steps by hand, state that comes back, and errors."""

import numpy as np
import pytest

from minidet import nn, optim, tensor

STEPS = 20
# name: (the class in both, options under the names of torch)
TRAJECTORIES = {
    "SGD": ("SGD", {"lr": 0.1}),
    "SGD with momentum": ("SGD", {"lr": 0.05, "momentum": 0.9}),
    "SGD with weight decay": ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.02}),
    "SGD of Nesterov": ("SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01}),
    "Adam": ("Adam", {"lr": 0.05}),
    "Adam with its betas": ("Adam", {"lr": 0.05, "betas": (0.7, 0.95), "eps": 1e-3}),
    "Adam with weight decay": ("Adam", {"lr": 0.05, "weight_decay": 0.1}),
    "AdamW": ("AdamW", {"lr": 0.05}),
    "AdamW with weight decay": ("AdamW", {"lr": 0.05, "weight_decay": 0.3, "betas": (0.8, 0.9)}),
}
TARGET = np.linspace(-1, 1, 6).reshape(2, 3)


def parameters(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [tensor(rng.normal(size=shape).astype(dtype), requires_grad=True) for shape in ((2, 3), (3,), ())]


def loss_of(a, b, c, target):
    """Something curved in all three, in operators that torch shares."""
    return ((a * b - target) ** 2).sum() + (b**4).sum() * 0.1 + (c * b).sum() ** 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", TRAJECTORIES)
def test_twenty_steps_follow_torchs_trajectory(name, dtype):
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    kind, options = TRAJECTORIES[name]
    mine = parameters(dtype)
    other = [torch.tensor(p.data.copy(), requires_grad=True) for p in mine]
    target = TARGET.astype(dtype)
    theirs = getattr(torch.optim, kind)(other, **options)
    ours = getattr(optim, kind)(mine, **options)
    tolerance = 1e-5 if dtype is np.float32 else 1e-10
    for step in range(STEPS):
        ours.zero_grad()
        loss_of(*mine, target).backward()
        ours.step()
        theirs.zero_grad()
        loss_of(*other, torch.tensor(target)).backward()
        theirs.step()
        if step == STEPS // 2:  # a schedule
            ours.lr *= 0.5
            for group in theirs.param_groups:
                group["lr"] *= 0.5
        for p, q in zip(mine, other, strict=True):
            assert p.data.dtype == dtype
            np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=0, atol=tolerance, err_msg=f"step {step}")


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_defaults_are_torchs(kind):
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    theirs = getattr(torch.optim, kind)([torch.zeros(1)], **({"lr": 1.0} if kind == "SGD" else {})).defaults
    ours = getattr(optim, kind)(parameters(), **({"lr": 1.0} if kind == "SGD" else {}))
    assert ours.lr == theirs["lr"]
    for name in {"momentum", "nesterov", "weight_decay", "betas", "eps"} & set(theirs):
        assert getattr(ours, name) == theirs[name], name


def step_once(optimizer, x, gradient):
    x.grad = tensor(np.full(x.shape, gradient, x.dtype))
    optimizer.step()


def test_sgd_by_hand():
    x = tensor([10.0], requires_grad=True)
    sgd = optim.SGD([x], 0.5, momentum=0.5)
    step_once(sgd, x, 2.0)  # v = 2, x = 10 - 1
    assert x.data[0] == 9
    step_once(sgd, x, 4.0)  # v = 1 + 4 = 5, x = 9 - 2.5
    assert x.data[0] == 6.5


def test_weight_decay_of_sgd_by_hand():
    x = tensor([10.0], requires_grad=True)
    step_once(optim.SGD([x], 0.5, weight_decay=0.1), x, 2.0)  # 10 - 0.5 (2 + 1)
    assert x.data[0] == 8.5


def test_the_first_step_of_adam_is_the_learning_rate_whatever_the_gradient():
    for gradient in (1e-3, -50.0):
        x = tensor(np.array([1.0]), requires_grad=True)
        step_once(optim.Adam([x], 0.25, eps=0.0), x, gradient)
        np.testing.assert_allclose(x.data[0], 1 - 0.25 * np.sign(gradient), rtol=1e-12)


def test_the_decay_of_adamw_shrinks_the_weight_by_itself():
    x = tensor(np.array([8.0]), requires_grad=True)
    step_once(optim.AdamW([x], 0.5, weight_decay=0.25), x, 0.0)
    assert x.data[0] == 8 * (1 - 0.125)


def test_large_and_oddly_laid_out_parameters_are_updated_everywhere():
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=(300, 257)), rng.normal(size=(300, 257)).T, rng.normal(size=(6, 5, 4))[::2]):
        x = tensor(np.zeros(()), requires_grad=True)
        x.data = values.copy(order="K") if values.base is None else values
        before, gradient = x.data.copy(), rng.normal(size=values.shape)
        x.grad = tensor(gradient)
        optim.SGD([x], 0.5, momentum=0.9).step()
        np.testing.assert_allclose(x.data, before - 0.5 * gradient, rtol=1e-12, atol=1e-12)


def test_parameters_without_a_gradient_and_frozen_ones_stay():
    x, y, z = (tensor([1.0], requires_grad=True) for _ in range(3))
    optimizer = optim.Adam([x, y, z], 0.1)
    x.grad, z.grad = tensor([1.0]), tensor([1.0])
    z.requires_grad_(False)
    optimizer.step()
    assert (y.data[0], z.data[0]) == (1, 1)
    assert x.data[0] < 1
    optimizer.zero_grad()
    assert x.grad is None


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW])
def test_a_restored_optimizer_goes_on_bit_for_bit(kind):
    def advance(optimizer, x, count):
        for _ in range(count):
            optimizer.zero_grad()
            (x * x * x).sum().backward()
            optimizer.step()

    def start():
        x = tensor([0.5, 1.5], requires_grad=True)
        return x, kind({"weight": x}, **{"lr": 0.01} | ({"momentum": 0.9} if kind is optim.SGD else {}))

    x, optimizer = start()
    advance(optimizer, x, 3)
    saved = {key: np.array(value) for key, value in optimizer.state_dict().items()}
    values = x.data.copy()
    advance(optimizer, x, 3)

    again, restored = start()
    again.data[...] = values
    restored.load_state_dict(saved)
    advance(restored, again, 3)
    np.testing.assert_array_equal(again.data, x.data)
    assert restored.steps == optimizer.steps == {"weight": 6}


@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_a_parameter_that_joins_late_starts_its_own_count(kind):
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    mine = [tensor([1.0, -2.0], requires_grad=True), tensor([3.0], requires_grad=True)]
    other = [torch.tensor(p.data.copy(), requires_grad=True) for p in mine]
    ours, theirs = getattr(optim, kind)(mine, lr=0.1), getattr(torch.optim, kind)(other, lr=0.1)
    for step in range(12):
        for (x, late), optimizer in ((mine, ours), (other, theirs)):
            optimizer.zero_grad()
            loss = (x * x).sum()
            (loss + (late * late * late).sum() if step >= 6 else loss).backward()
            optimizer.step()
    for p, q in zip(mine, other, strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), atol=1e-5)


def test_the_state_is_named_by_the_parameters_names():
    layer = nn.Linear(2, 3)
    state = optim.Adam(layer.named_parameters(), 0.1).state_dict()
    assert set(state) == {"lr"} | {
        f"{slot}/{name}" for slot in ("mean", "square", "steps") for name in ("weight", "bias")
    }
    assert state["mean/weight"].shape == (3, 2)


def test_the_state_of_other_parameters_is_refused_by_name():
    state = optim.Adam(nn.Linear(2, 3).named_parameters()).state_dict()
    with pytest.raises(ValueError, match=r"expected the state of the same parameters; differing: \['mean/bias'"):
        optim.Adam(nn.Linear(2, 3, bias=False).named_parameters()).load_state_dict(state)


def test_no_parameters_double_names_and_negative_rates_are_refused():
    x = tensor([1.0], requires_grad=True)
    with pytest.raises(ValueError, match="SGD: expected parameters with distinct names, got 0 entries"):
        optim.SGD([], 0.1)
    with pytest.raises(ValueError, match="got 2 entries"):
        optim.SGD([("a", x), ("a", x)], 0.1)
    with pytest.raises(ValueError, match="Adam: expected lr and weight_decay of at least 0, got -1"):
        optim.Adam([x], -1)


def test_a_state_of_other_shapes_is_refused_whole():
    """NumPy would broadcast one number to all weights."""
    optimizer = optim.SGD({"a": tensor(np.ones(2)), "b": tensor(np.ones(3))}, lr=0.1)
    state = optimizer.state_dict() | {"lr": 5.0, "velocity/b": np.float64(7)}
    with pytest.raises(ValueError, match=r"SGD: the state is of other parameters: velocity.b: expected \(3,\), got"):
        optimizer.load_state_dict(state)
    assert optimizer.lr == 0.1
    np.testing.assert_array_equal(optimizer.state["b"]["velocity"], np.zeros(3))
