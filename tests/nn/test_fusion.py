"""A convolution with its batch norm, residual and ReLU in one pass: equal to one after the other, and taken only where
it may be."""

from itertools import product

import numpy as np
import pytest

import minidet
import minidet_kernels as mk
from minidet import Tensor, nn, no_grad
from minidet import functional as F

# (channels, outputs, kernel, stride, size): direct and Winograd's, bands, whole and broken vectors, several parts.
LAYERS = [
    (64, 64, 1, 1, (13, 17)),
    (300, 32, 1, 1, (5, 6)),
    (700, 48, 1, 2, (8, 9)),
    (32, 32, 3, 2, (19, 21)),
    (16, 5, 3, 1, (8, 9)),
    (3, 64, 7, 2, (21, 22)),
    (64, 64, 3, 1, (40, 41)),
    (256, 272, 3, 1, (9, 10)),
    (64, 64, 3, 1, (3, 4)),
]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("version", ["reference", "cpu"])
def test_the_kernel_scales_adds_and_rectifies(layer, version):
    """Against the plain convolution, in float64, and the equation."""
    channels, outputs, kernel, stride, size = layer
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, channels, *size), np.float32)
    weight = (rng.standard_normal((outputs, channels, kernel, kernel)) / (channels**0.5 * kernel)).astype(np.float32)
    bias, scale = rng.standard_normal((2, outputs), np.float32)
    geometry = {"stride": stride, "padding": kernel // 2}
    with mk.use("reference"):
        plain = mk.conv2d(x.astype(np.float64), weight.astype(np.float64), **geometry)
    residual = rng.standard_normal(plain.shape, np.float32)
    for parts in product([False, True], repeat=4):
        of_scale, of_bias, of_residual, relu = parts
        expected = plain * scale[:, None, None] if of_scale else plain
        expected = expected + bias[:, None, None] if of_bias else expected
        expected = expected + residual if of_residual else expected
        expected = np.maximum(expected, 0) if relu else expected
        with mk.use(version):
            found = mk.conv2d(
                x,
                weight,
                bias if of_bias else None,
                **geometry,
                scale=scale if of_scale else None,
                residual=residual if of_residual else None,
                relu=relu,
            )
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4, err_msg=str(parts))


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_nan_stays_a_nan(kernel):
    x, weight = np.zeros((1, 64, 24, 24), np.float32), np.ones((64, 64, kernel, kernel), np.float32)
    x[0, 0, 5, 5] = np.nan
    assert np.isnan(mk.conv2d(x, weight, padding=kernel // 2, relu=True)[0, :, 5, 5]).all()


def test_wrong_shapes_are_refused_by_name():
    x, weight = np.zeros((1, 16, 4, 4), np.float32), np.zeros((32, 16, 1, 1), np.float32)
    with pytest.raises(ValueError, match="scale"):
        mk.conv2d(x, weight, scale=np.ones(16, np.float32))
    with pytest.raises(ValueError, match="residual"):
        mk.conv2d(x, weight, residual=np.ones((1, 32, 4, 3), np.float32))
    with pytest.raises(TypeError, match="float"):
        mk.conv2d(x, weight, residual=np.ones((1, 32, 4, 4)))


def layers(norm: str, bias: bool, seed: int = 0):
    minidet.manual_seed(seed)
    conv, rng = nn.Conv2d(16, 32, 3, padding=1, bias=bias), np.random.default_rng(seed)
    make = {"none": lambda c: None, "batch norm": nn.BatchNorm2d, "frozen": nn.FrozenBatchNorm2d}[norm]
    norm_layer = make(32)
    if norm_layer is not None:
        for key, array in norm_layer.state_dict().items():
            if array.ndim:
                array[...] = rng.uniform(0.5, 2, 32) if key == "running_var" else rng.normal(size=32)
        norm_layer.eval()
    return conv, norm_layer, nn.ReLU()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("norm", ["none", "batch norm", "frozen"])
def test_modules_in_one_pass_equal_one_after_the_other(norm, bias):
    conv, norm_layer, relu = layers(norm, bias)
    rng = np.random.default_rng(1)
    x, residual = (Tensor(rng.standard_normal((2, c, 9, 11), np.float32)) for c in (16, 32))
    for added, rectifier in product([None, residual], [None, relu]):
        y = conv(x)
        y = y if norm_layer is None else norm_layer(y)
        y = y if added is None else y + added
        expected = y if rectifier is None else F.relu(y)
        with no_grad():
            found = nn.conv_norm_relu(x, conv, norm_layer, rectifier, added)
        np.testing.assert_allclose(found.data, expected.data, rtol=0, atol=1e-5)


def taken(monkeypatch) -> list:
    """The names of kernels' options that were used, a list that fills."""
    seen, before = [], mk.conv2d
    monkeypatch.setattr(mk, "conv2d", lambda *a, **k: (seen.append(bool(k.get("relu"))), before(*a, **k))[1])
    return seen


def test_it_is_taken_only_where_nobody_could_tell(monkeypatch):
    seen = taken(monkeypatch)
    x = Tensor(np.zeros((1, 16, 4, 4), np.float32))
    conv, norm, relu = layers("batch norm", bias=False)
    block = nn.ConvNormReLU(conv, norm, relu).eval()

    def fuses() -> bool:
        seen.clear()
        block(x)
        return seen == [True]

    assert not fuses()  # a gradient may be asked for
    with no_grad():
        assert fuses()
        for module in (conv, norm, relu):
            remove = module.register_forward_hook(lambda module, inputs, output: None)
            assert not fuses()
            remove()
        assert not (block.train(), fuses())[1]  # the statistics are the batch's
        assert (block.eval(), fuses())[1]
        with minidet.detect_anomaly():
            assert not fuses()


def test_other_layers_that_somebody_puts_in_are_run_one_after_the_other():
    """A batch norm that is taken out leaves nothing; the block's children are then in another order."""
    conv, norm, relu = layers("batch norm", bias=False)
    block = nn.ConvNormReLU(conv, norm, relu)
    setattr(block, "1", nn.Sequential())
    x = Tensor(np.random.default_rng(0).standard_normal((1, 16, 4, 4), np.float32))
    with no_grad():
        np.testing.assert_array_equal(block(x).data, relu(conv(x)).data)


def test_a_hook_sees_what_it_saw_before():
    conv, norm, relu = layers("batch norm", bias=False)
    x, outputs = Tensor(np.random.default_rng(0).standard_normal((1, 16, 4, 4), np.float32)), []
    with no_grad():
        expected = norm(conv(x)).data
        with nn.forward_hooks([(norm, lambda module, inputs, output: outputs.append(output.data))]):
            nn.ConvNormReLU(conv, norm, relu)(x)
    np.testing.assert_array_equal(outputs[0], expected)


def test_the_gradient_is_that_of_the_steps():
    conv, norm, relu = layers("batch norm", bias=False)
    x = Tensor(np.random.default_rng(0).standard_normal((1, 16, 4, 4), np.float32), requires_grad=True)
    weights = np.random.default_rng(1).standard_normal((1, 32, 4, 4), np.float32)
    grads = []
    for y in (nn.conv_norm_relu(x, conv, norm, relu, x[:, :1]), F.relu(norm(conv(x)) + x[:, :1])):
        grads.append(minidet.grad((y * weights).sum(), [x, conv.weight]))
    for found, expected in zip(*grads, strict=True):
        np.testing.assert_array_equal(found.data, expected.data)
