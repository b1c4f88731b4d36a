"""Every layer against its namesake in torch, with torch's own state_dict loaded: results, gradients, running state."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidet_kernels as kernels
from minidet import Tensor, nn
from minidet.random import manual_seed
from tests.functional.oracle import DTYPES, LAYOUTS, assert_close, laid_out

torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")

# (arguments that both share, shape of x)
CASES = [
    ("Linear", (5, 3), {}, (4, 5)),
    ("Linear", (5, 3), {"bias": False}, (2, 3, 5)),
    ("Linear", (5, 3), {}, (0, 5)),
    ("Conv2d", (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}, (2, 4, 7, 6)),
    ("Conv2d", (3, 2, (1, 3)), {"dilation": (1, 2), "bias": False}, (2, 3, 4, 6)),
    ("Conv2d", (3, 2, 3), {"padding": (0, 1)}, (0, 3, 4, 5)),
    ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}, (2, 4, 3, 4)),
    ("ConvTranspose2d", (3, 2, (2, 3)), {"dilation": 2, "bias": False}, (1, 3, 3, 3)),
    ("BatchNorm2d", (3,), {}, (2, 3, 4, 5)),
    ("BatchNorm2d", (3,), {"eps": 1e-2, "momentum": 0.4}, (3, 3, 1, 2)),
    ("MaxPool2d", (2,), {}, (2, 3, 6, 4)),
    ("MaxPool2d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True}, (1, 2, 6, 5)),
    ("MaxPool2d", (2,), {"dilation": 2, "stride": 1}, (1, 2, 5, 5)),
    ("AvgPool2d", (2,), {}, (2, 3, 6, 4)),
    ("AvgPool2d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False}, (1, 2, 6, 5)),
    ("AdaptiveAvgPool2d", ((2, 3),), {}, (2, 3, 6, 6)),
    ("AdaptiveAvgPool2d", (3,), {}, (2, 2, 7, 2)),
    ("LocalResponseNorm", (5,), {"alpha": 0.3, "beta": 0.75, "k": 2.0}, (2, 7, 3, 3)),
    ("Flatten", (), {}, (2, 3, 4, 5)),
    ("Flatten", (2,), {}, (2, 3, 4, 5)),
    ("Identity", (), {}, (2, 3)),
    ("ReLU", (), {}, (2, 3)),
    ("LeakyReLU", (0.1,), {}, (2, 3)),
    ("LeakyReLU", (), {}, (2, 3)),
    ("Sigmoid", (), {}, (2, 3)),
    ("Tanh", (), {}, (2, 3)),
    ("Softmax", (), {"dim": 1}, (2, 3, 4)),
    ("Dropout", (0.0,), {}, (2, 3)),
]


def twins(kind, args, options, dtype):
    """The layer in torch with random weights, and ours with its state loaded."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(*args, **options).to(getattr(torch, dtype))
    ours = getattr(nn, kind)(*args, **options).to(np.dtype(dtype))
    state = {key: value.numpy() for key, value in theirs.state_dict().items()}
    assert {key: (value.shape, value.dtype) for key, value in ours.state_dict().items()} == {
        key: (value.shape, value.dtype) for key, value in state.items()
    }
    ours.load_state_dict(state)
    return ours, theirs


def compare(ours, theirs, x, seed=0):
    """Result, gradients of x and of every parameter, and the state afterwards."""
    a, b = Tensor(x, requires_grad=True), torch.tensor(x.copy(), requires_grad=True)
    y, expected = ours(a), theirs(b)
    assert_close(y.data, expected.detach().numpy(), "result")
    cotangent = np.random.default_rng(seed).normal(size=y.shape).astype(x.dtype)
    y.backward(cotangent)
    expected.backward(torch.tensor(cotangent))
    assert_close(a.grad.data, b.grad.numpy(), "gradient of x")
    parameters = dict(ours.named_parameters())
    assert list(parameters) == [name for name, _ in theirs.named_parameters()]
    for name, parameter in theirs.named_parameters():
        assert_close(parameters[name].grad.data, parameter.grad.numpy(), f"gradient of {name}")
    for key, value in theirs.state_dict().items():
        assert_close(ours.state_dict()[key], value.numpy(), key)


@pytest.mark.parametrize("version", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}{case[3]}".replace(" ", ""))
def test_a_layer_equals_torchs(case, dtype, version):
    kind, args, options, shape = case
    ours, theirs = twins(kind, args, options, dtype)
    x = np.random.default_rng(1).normal(size=shape).astype(dtype)
    with kernels.use(version):
        compare(ours, theirs, x)
        compare(ours.eval(), theirs.eval(), x, seed=1) if kind != "BatchNorm2d" else None
    if kind == "BatchNorm2d":  # in evaluation by the running state that training has moved
        for parameter in [*ours.parameters(), *theirs.parameters()]:
            parameter.grad = None
        compare(ours.eval(), theirs.eval(), x)


@pytest.mark.parametrize("kind", ["Conv2d", "ConvTranspose2d", "Linear"])
def test_initial_weights_are_spread_as_torchs(kind):
    arguments = (64, 48) if kind == "Linear" else (64, 48, 3)
    manual_seed(0)
    ours, theirs = getattr(nn, kind)(*arguments), getattr(torch.nn, kind)(*arguments)
    for name, parameter in ours.named_parameters():
        expected = dict(theirs.named_parameters())[name].detach().numpy()
        np.testing.assert_allclose(np.abs(parameter.data).max(), np.abs(expected).max(), rtol=0.1)
        np.testing.assert_allclose(parameter.data.std(), expected.std(), rtol=0.25)


INITIALISERS = (
    "uniform_",
    "normal_",
    "xavier_uniform_",
    "xavier_normal_",
    "kaiming_uniform_",
    "kaiming_normal_",
)


@pytest.mark.parametrize("shape", [(200, 100), (40, 30, 3, 5)])
@pytest.mark.parametrize("name", INITIALISERS)
def test_initialisers_have_torchs_moments(name, shape):
    x = Tensor(np.zeros(shape, np.float32))
    getattr(nn.init, name)(x, rng=np.random.default_rng(0))
    expected = getattr(torch.nn.init, name)(torch.zeros(shape)).numpy()
    np.testing.assert_allclose(x.data.std(), expected.std(), rtol=0.05)
    np.testing.assert_allclose(x.data.mean(), expected.mean(), atol=0.05 * expected.std())
    np.testing.assert_allclose(np.abs(x.data).max(), np.abs(expected).max(), rtol=0.3)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from(DTYPES),
    batch=st.integers(1, 3),
)
def test_a_network_of_all_layers_equals_torchs(seed, layout, dtype, batch):
    def build(library):
        return library.Sequential(
            library.Conv2d(3, 4, 3, padding=1, bias=False),
            library.BatchNorm2d(4),
            library.ReLU(),
            library.MaxPool2d(2),
            library.LocalResponseNorm(3),
            library.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
            library.LeakyReLU(0.1),
            library.ConvTranspose2d(6, 4, 2, stride=2),
            library.Tanh(),
            library.AvgPool2d(2, stride=1),
            library.Flatten(),
            library.Linear(4 * 3 * 3, 5),
            library.Softmax(dim=1),
        )

    torch.manual_seed(seed)
    theirs = build(torch.nn).to(getattr(torch, dtype))
    ours = build(nn).to(np.dtype(dtype))
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    x = laid_out(np.random.default_rng(seed).normal(size=(batch, 3, 8, 8)).astype(dtype), layout)
    compare(ours, theirs, x, seed)
