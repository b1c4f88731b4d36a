"""Modules: what is found where, states that load or are refused whole, modes, hooks, and errors that name the layer."""

import gc
import threading
import weakref

import numpy as np
import pytest

import minidet.functional as F
from minidet import nn, no_grad, tensor


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)
        self.scale = nn.Parameter(np.ones(1, np.float32))

    def forward(self, x):
        return self.fc(x) * self.scale


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.GlobalAvgPool2d())
        self.heads = nn.ModuleList([Head(), Head()])

    def forward(self, x):
        features = self.body(x)
        return [head(features) for head in self.heads]


KEYS = [
    "body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias",
    "heads.0.scale", "heads.0.fc.weight", "heads.0.fc.bias", "heads.1.scale", "heads.1.fc.weight", "heads.1.fc.bias",
]  # fmt: skip
BUFFERS = ["body.1.running_mean", "body.1.running_var", "body.1.num_batches_tracked"]


def test_parameters_and_buffers_are_found_by_their_paths():
    network = Network()
    assert sorted(name for name, _ in network.named_parameters()) == sorted(KEYS)
    assert [name for name, _ in network.named_buffers()] == BUFFERS
    assert set(network.state_dict()) == set(KEYS + BUFFERS)
    assert len(list(network.parameters())) == len(KEYS)
    assert [type(child).__name__ for child in network.children()] == ["Sequential", "ModuleList"]


def test_a_shared_parameter_is_trained_once_and_saved_under_both_names():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    assert [name for name, _ in network.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert {"0.weight", "1.weight"} <= set(network.state_dict())


def test_a_replaced_attribute_is_forgotten():
    head = Head()
    head.fc = nn.Linear(4, 3, bias=False)
    assert {name for name, _ in head.named_parameters()} == {"scale", "fc.weight"}
    head.scale = None
    assert {name for name, _ in head.named_parameters()} == {"fc.weight"}


def test_a_deleted_attribute_is_forgotten():
    network = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm2d(2))
    del network[0].bias
    del network[1].running_var
    delattr(network[1], "weight")
    assert list(network.state_dict()) == ["0.weight", "1.bias", "1.running_mean", "1.num_batches_tracked"]
    delattr(network, "0")
    assert list(network.state_dict()) == ["1.bias", "1.running_mean", "1.num_batches_tracked"]


def test_a_tensor_in_place_of_a_parameter_is_refused():
    layer = nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r"Linear: expected a Parameter or None for 'weight', got a Tensor"):
        layer.weight = tensor(np.zeros((2, 2)))
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_parts_with_private_names_are_found_too():
    network = nn.Sequential()
    network._stem, network._scale = nn.ReLU(), nn.Parameter(np.ones(1, np.float32))
    assert list(network.state_dict()) == ["_scale"]
    assert network._stem in list(network.modules())


def test_a_state_comes_back_as_copies_in_the_modules_dtype():
    source, target = Network(), Network()
    state = {key: np.array(value, dtype=np.float64) for key, value in source.state_dict().items()}
    target.load_state_dict(state)
    for key, value in target.state_dict().items():
        assert value.dtype == source.state_dict()[key].dtype
        np.testing.assert_array_equal(value, source.state_dict()[key])
    state["body.0.weight"][...] = 7
    assert not (target.body[0].weight.data == 7).any()


def test_a_state_that_does_not_fit_is_refused_whole_with_every_problem():
    network = Network()
    before = {key: value.copy() for key, value in network.state_dict().items()}
    state = {key: value + 1 for key, value in before.items()}
    del state["body.0.bias"]
    state["other"] = np.zeros(1)
    state["heads.0.fc.weight"] = np.zeros((9, 9), np.float32)
    with pytest.raises(ValueError, match="does not fit this Network") as caught:
        network.load_state_dict(state)
    for told in (
        "missing keys: body.0.bias",
        "unexpected keys: other",
        r"heads.0.fc.weight: expected (2, 4), got (9, 9)",
    ):
        assert told in str(caught.value)
    for key, value in network.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_without_strict_what_fits_is_loaded_and_a_wrong_shape_is_still_refused():
    network = Network()
    network.load_state_dict({"heads.0.scale": np.array([5.0]), "other": np.zeros(1)}, strict=False)
    assert network.heads[0].scale.data[0] == 5
    with pytest.raises(ValueError, match=r"wrong shapes: heads.0.scale"):
        network.load_state_dict({"heads.0.scale": np.zeros(2)}, strict=False)


def test_train_and_eval_reach_every_part():
    network = Network().eval()
    assert not any(module.training for module in network.modules())
    x = tensor(np.ones((2, 3, 2, 2), np.float32))
    network(x)
    assert network.body[1].num_batches_tracked == 0
    network.train()
    network(x)
    assert network.body[1].num_batches_tracked == 1


def test_evaluation_is_repeatable_and_dropout_training_is_not():
    layer = nn.Dropout(0.5)
    x = tensor(np.ones(1000, np.float32))
    assert layer.eval()(x) is x
    layer.train()
    assert not np.array_equal(layer(x).data, layer(x).data)


def test_to_converts_parameters_and_floating_buffers():
    network = Network().to(np.float64)
    assert {parameter.dtype for parameter in network.parameters()} == {np.dtype(np.float64)}
    assert network.body[1].running_mean.dtype == np.float64
    assert network.body[1].num_batches_tracked.dtype == np.int64
    outputs = network(tensor(np.ones((2, 3, 2, 2))))
    assert outputs[0].dtype == np.float64
    with pytest.raises(TypeError, match=r"expected np.float32, np.float64, 'cpu' or 'cuda', got <class 'numpy.int64'>"):
        network.to(np.int64)


def test_running_statistics_still_move_after_a_conversion():
    layer = nn.BatchNorm2d(1).to(np.float64)
    layer(tensor(np.array([[[[1.0, 3.0]]]])))
    np.testing.assert_allclose(layer.running_mean, [0.2])
    assert layer.state_dict()["running_mean"] is layer.running_mean


def test_freezing_and_forgetting_gradients():
    network = Network()
    sum(y.sum() for y in network(tensor(np.ones((2, 3, 2, 2), np.float32)))).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    network.zero_grad()
    assert all(parameter.grad is None for parameter in network.parameters())
    network.body.requires_grad_(False)
    sum(y.sum() for y in network(tensor(np.random.default_rng(0).random((2, 3, 2, 2), np.float32)))).backward()
    assert all(parameter.grad is None for parameter in network.body.parameters())
    assert all(parameter.grad is not None for parameter in network.heads.parameters())


def test_a_forward_hook_sees_and_may_replace_the_output():
    layer, seen = nn.Linear(2, 1), []
    remove = layer.register_forward_hook(
        lambda module, inputs, output: seen.append((module, inputs[0].shape, output.shape))
    )
    replace = layer.register_forward_hook(lambda module, inputs, output: output * 0)
    y = layer(tensor([[1.0, 2.0]]))
    assert seen == [(layer, (1, 2), (1, 1))]
    assert y.item() == 0
    remove()
    replace()
    layer(tensor([[1.0, 2.0]]))
    assert len(seen) == 1


def test_hooks_put_on_for_a_while_are_for_the_calls_of_their_own_thread():
    layer, x, found = nn.Linear(2, 1), tensor([[1.0, 2.0]]), []
    expected = layer(x).item()
    with nn.forward_hooks([(layer, lambda module, inputs, output: output * 0)]):
        thread = threading.Thread(target=lambda: found.append(layer(x).item()))
        thread.start()
        thread.join()
        assert layer(x).item() == 0
    assert found == [expected] == [layer(x).item()]


def test_sequential_counts_slices_and_iterates():
    body = Network().body
    assert len(body) == 4
    assert isinstance(body[:2], nn.Sequential)
    assert list(body)[2] is body[2] is body[-2]
    assert body[:2][1] is body[1]


def images(*shape, dtype=np.float32):
    return tensor(np.ones(shape, dtype))


MISTAKES = {
    "channels last": (
        lambda n: n.body(images(2, 8, 8, 3)),
        r"Conv2d 'body.0': expected x \(N, 3, H, W\), got \(2, 8, 8, 3\); "
        r"looks channels-last, use x.transpose\(0, 3, 1, 2\)",
    ),
    "no batch": (lambda n: n.body(images(3, 8, 8)), r"got \(3, 8, 8\); looks like one image, use x\[None\]"),
    "channels": (lambda n: n.body(images(2, 5, 8, 8)), r"expected x \(N, 3, H, W\), got \(2, 5, 8, 8\)"),
    "a list": (lambda n: n.body([1.0]), r"Conv2d 'body.0': expected x \(N, 3, H, W\), got list"),
    "a dtype": (
        lambda n: n.body(images(2, 3, 8, 8, dtype=np.float64)),
        r"Conv2d 'body.0': expected x in the layer's float32, got float64; use x.astype\(np.float32\)",
    ),
    "a dtype of features": (
        lambda n: n.heads[1](images(2, 4, dtype=np.float64)),
        r"Linear 'heads.1.fc': expected x in the layer's float32, got float64; use x.astype\(np.float32\)",
    ),
    "batch norm": (lambda n: n.body[1](images(2, 3, 2, 2)), r"BatchNorm2d 'body.1': expected x \(N, 4, H, W\)"),
    "linear": (
        lambda n: n.heads[1](images(2, 4, 2)),
        r"Linear 'heads.1.fc': expected x \(\.\.\., 4\), got \(2, 4, 2\); flatten maps",
    ),
    "groups": (lambda n: nn.Conv2d(3, 4, 1, groups=2), "expected channels divisible by groups=2, got 3, 4"),
    "no forward": (lambda n: nn.Module()(1), "Module: a Module must define forward"),
    "no fan": (lambda n: nn.init.kaiming_normal_(images(3)), r"at least two axes \(K, C, ...\), got shape \(3,\)"),
    "an unknown fan": (
        lambda n: nn.init.kaiming_normal_(images(3, 3), mode="fan"),
        "expected mode 'fan_in' or 'fan_out', got 'fan'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_errors_name_the_layer_and_the_mistake(mistake):
    call, message = MISTAKES[mistake]
    with pytest.raises((ValueError, TypeError), match=message):
        call(Network())


def test_slicing_a_network_leaves_its_layers_names_alone():
    network = Network()
    network.body[:2](tensor(np.ones((2, 3, 2, 2), np.float32)))
    assert network.body[0].title == "Conv2d 'body.0'"


def test_a_module_without_super_init_is_told_so():
    class Forgetful(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"Forgetful: call super\(\).__init__\(\) before assigning 'fc'"):
        Forgetful()


def test_the_initial_weights_follow_the_seed():
    from minidet.random import manual_seed

    manual_seed(3)
    first = nn.Linear(3, 2).weight.data
    manual_seed(3)
    np.testing.assert_array_equal(nn.Linear(3, 2).weight.data, first)
    assert not np.array_equal(nn.Linear(3, 2).weight.data, first)


def test_a_dropped_network_is_freed_without_the_garbage_collector():
    gc.disable()
    try:
        network = Network()
        with no_grad():
            F.relu(network(tensor(np.ones((2, 3, 2, 2), np.float32)))[0])
        reference = weakref.ref(network.body[0])
        del network
        assert reference() is None
    finally:
        gc.enable()


def test_repr_shows_the_parts():
    assert repr(nn.Sequential(nn.Linear(2, 1), nn.ReLU())) == (
        "Sequential(\n  (0): Linear(2, 1, bias=True)\n  (1): ReLU()\n)"
    )
