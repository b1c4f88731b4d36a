"""The methods on networks: identities, the layer that is looked at, and a model that is left as it was."""

import threading

import numpy as np
import pytest
from heatmap_nets import before_relu, flat_net, gap_net, images

import minidet
from minidet import Tensor, heatmaps, nn
from minidet.backbones import TinyBackbone
from minidet.heatmaps.scores import at_rest
from minidet.models.classifier import Classifier
from minidet.models.localizer import Localizer

X = images()
LAYER_METHODS = [name for name, method in heatmaps.METHODS.items() if issubclass(method, heatmaps.LayerMap)]
GRADIENT_METHODS = ["gradcam", "gradcam++", "xgradcam", "hirescam", "layercam"]


def assert_equal(got, expected, tolerance: float = 1e-6) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).max())


# ---------------------------------------------------------------------------------------------- identities


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("class_index", [None, 2, [0, 3, 1]])
def test_on_conv_gap_fc_grad_cam_and_hires_cam_are_cam_by_the_places(dtype, class_index) -> None:
    net, x = gap_net(dtype), images(dtype=dtype)
    cam = before_relu(heatmaps.CAM(net), x, class_index)
    assert cam.shape == (3, 4, 4)
    assert (cam < 0).any()
    assert (cam > 0).any()
    for method in (heatmaps.GradCAM, heatmaps.HiResCAM, heatmaps.XGradCAM):
        assert_equal(before_relu(method(net), x, class_index), cam / 16)
    assert_equal(heatmaps.CAM(net)(x, class_index), cam)  # no ReLU
    assert_equal(heatmaps.GradCAM(net)(x, class_index), np.maximum(cam, 0) / 16)


def test_the_sum_of_cam_over_the_places_and_the_bias_are_the_logit() -> None:
    net = gap_net()
    logits = net(Tensor(X)).data
    for class_index in range(4):
        sums = heatmaps.CAM(net)(X, class_index).astype(np.float64).sum(axis=(1, 2))
        assert_equal(sums / 16 + net[6].bias.data[class_index], logits[:, class_index])


def test_with_constant_gradients_grad_cam_is_hires_cam_and_otherwise_it_is_not() -> None:
    linear = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AvgPool2d(6), nn.Flatten(), nn.Linear(6, 4)).to(np.float64)
    maps = [before_relu(method(linear, "0"), X, 1) for method in (heatmaps.GradCAM, heatmaps.HiResCAM)]
    assert_equal(*maps)
    maps = [before_relu(method(flat_net()), X, 1) for method in (heatmaps.GradCAM, heatmaps.HiResCAM)]
    assert np.abs(maps[0] - maps[1]).max() > 0.1 * np.abs(maps[0]).max()


def test_hires_cam_sums_up_to_the_logit_of_a_network_that_is_linear_above_the_layer() -> None:
    minidet.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4)).to(np.float64)
    logits = net(Tensor(X)).data[:, 2] - net[3].bias.data[2]
    for method in (heatmaps.HiResCAM, heatmaps.XGradCAM):
        assert_equal(before_relu(method(net), X, 2).sum(axis=(1, 2)), logits)


def test_cam_after_global_max_pooling_has_the_same_weights() -> None:
    average, most = gap_net(), gap_net(pool=nn.GlobalMaxPool2d())
    np.testing.assert_array_equal(heatmaps.CAM(average)(X, 1), heatmaps.CAM(most)(X, 1))


def test_cam_knows_the_structure_by_its_numbers() -> None:
    """AvgPool2d and Flatten are a global pooling too; a dropout does nothing in evaluation."""
    pooled = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Dropout())
    np.testing.assert_array_equal(heatmaps.CAM(gap_net(pool=pooled))(X, 1), heatmaps.CAM(gap_net())(X, 1))


# -------------------------------------------------------------------------------------------- the interface


@pytest.mark.parametrize("name", heatmaps.METHODS)
def test_every_method_gives_one_map_an_image(name: str) -> None:
    net = gap_net(np.float32)
    method = heatmaps.METHODS[name](net)
    maps = method(images(dtype=np.float32))
    size = (4, 4) if name in LAYER_METHODS else (8, 8)
    assert (maps.shape, maps.dtype, type(maps)) == ((3, *size), np.float32, np.ndarray)
    assert method.layer_name == ("4" if name in LAYER_METHODS else "image")
    assert name == "cam" or (maps >= 0).all()
    assert maps.max() > 0
    assert method(X[:0]).shape == (0, *size)


@pytest.mark.parametrize("name", heatmaps.METHODS)
def test_the_maps_of_a_batch_are_those_of_its_images(name: str) -> None:
    method = heatmaps.METHODS[name](flat_net() if name != "cam" else gap_net())
    classes = [1, 0, 3]
    each = [method(X[n : n + 1], classes[n])[0] for n in range(3)]
    assert_equal(method(X, np.array(classes)), np.stack(each))


def test_without_a_class_the_predicted_one_is_explained() -> None:
    net = flat_net().eval()
    predicted = net(Tensor(X)).data.argmax(axis=1)
    for name in set(heatmaps.METHODS) - {"cam"}:
        method = heatmaps.METHODS[name](net)
        np.testing.assert_array_equal(method(X), method(X, predicted), name)


def test_images_may_be_a_tensor_and_are_cast_to_the_models_dtype() -> None:
    net = gap_net(np.float32)
    expected = heatmaps.GradCAM(net)(X.astype(np.float32), 1)
    np.testing.assert_array_equal(heatmaps.GradCAM(net)(Tensor(X), 1), expected)


def test_a_map_is_the_same_within_no_grad_and_with_a_frozen_model() -> None:
    net = flat_net()
    expected = heatmaps.GradCAM(net)(X, 1)
    with minidet.no_grad():
        np.testing.assert_array_equal(heatmaps.GradCAM(net.requires_grad_(False))(X, 1), expected)
        assert not minidet.is_grad_enabled()


def test_the_scores_are_the_models_logits_where_it_has_them() -> None:
    minidet.manual_seed(0)
    x = images(2, 16, np.float32)
    for model in (Classifier(TinyBackbone((4, 8)), 3), Localizer(TinyBackbone((4, 8)), 3, image_size=16, hidden=8)):
        maps = heatmaps.GradCAM(model)(x, 1)
        leaf = Tensor(model.eval().backbone(Tensor(x)).data, requires_grad=True)
        head = model.class_head(leaf.flatten(1)) if isinstance(model, Localizer) else model.fc(leaf.mean(axis=(2, 3)))
        assert_equal(model.logits(Tensor(x)).data, head.data, 1e-5)
        (gradient,) = minidet.grad(head[:, 1].sum(), leaf)
        weights = gradient.data.mean(axis=(2, 3))
        assert_equal(maps, np.maximum(np.einsum("nk,nkij->nij", weights, leaf.data), 0), 1e-5)


def test_a_layer_called_logits_is_no_method() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.logits = gap_net(np.float32), nn.Linear(4, 3)

        def forward(self, x):
            return self.logits(self.body(x))

    assert heatmaps.GradCAM(Named())(X, 2).shape == (3, 4, 4)


def test_the_localizers_logits_are_those_it_predicts_by() -> None:
    from minidet import watch

    minidet.manual_seed(0)
    model = Localizer(TinyBackbone((4, 8)), 3, image_size=16, hidden=8).eval()
    seen = []
    with watch.listen(lambda event: seen.append(event)):
        model(Tensor(images(2, 16, np.float32)))
    emitted = {event.name: event.value for event in seen}["localizer.logits"]
    np.testing.assert_array_equal(model.logits(Tensor(images(2, 16, np.float32))).data, emitted.data)


# --------------------------------------------------------------------------------- which layer is looked at


class Enlarge(nn.Module):
    """Back to 8 x 8, as a VGG's adaptive pooling makes 7 x 7 of 3 x 3 when the image is small."""

    def forward(self, x):
        return minidet.functional.interpolate(x, 8)


def test_the_layer_is_the_last_one_before_the_map_changes_its_size() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), Enlarge(), nn.Flatten(), nn.Linear(4 * 64, 2)
    ).to(np.float64)  # fmt: skip
    method = heatmaps.GradCAM(net)
    method(X)
    assert method.layer_name == "1"


def test_the_last_map_of_the_last_convolutions_size_is_found() -> None:
    x = images(1, 16, np.float32)
    for model, expected in (
        (gap_net(np.float32), "4"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(196, 2)), "1"),  # VGG
        (Classifier(TinyBackbone((4, 8)), 3), "backbone"),
        # A transposed convolution is one, too.
        (
            nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.ConvTranspose2d(4, 4, 2, 2), nn.GlobalAvgPool2d(), nn.Linear(4, 2)),
            "1",
        ),
        # A convolution of 1 x 1 maps is a fully connected layer.
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(14), nn.Conv2d(4, 2, 1), nn.Flatten()), "0"),
    ):
        method = heatmaps.GradCAM(model)
        assert method.layer_name is None
        method(x, 1)
        assert method.layer_name == expected


def test_a_layer_is_given_by_its_path_or_itself() -> None:
    model = Classifier(TinyBackbone((4, 8, 8)), 3)
    x = images(2, 16, np.float32)
    by_path, by_itself = (heatmaps.LayerCAM(model, layer) for layer in ("backbone.stem", model.backbone.stem))
    assert by_path.layer_name == by_itself.layer_name == "backbone.stem"
    assert by_path(x, 1).shape == (2, 8, 8)
    np.testing.assert_array_equal(by_path(x, 1), by_itself(x, 1))


def test_of_a_layer_that_runs_twice_the_last_run_counts() -> None:
    relu = nn.ReLU()
    minidet.manual_seed(0)
    parts = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.GlobalAvgPool2d(), nn.Linear(4, 2)
    shared = nn.Sequential(parts[0], relu, parts[1], relu, *parts[2:]).to(np.float64)
    own = nn.Sequential(parts[0], nn.ReLU(), parts[1], nn.ReLU(), *parts[2:])
    np.testing.assert_array_equal(heatmaps.GradCAM(shared, relu)(X, 1), heatmaps.GradCAM(own, "3")(X, 1))


class TwoHeads(nn.Module):
    """logits of one branch; the other has a map that they do not depend on, and a part that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.other = gap_net(np.float32), nn.Conv2d(3, 2, 3)
        self.unused = nn.Conv2d(3, 2, 3)

    def forward(self, x):
        self.other(x)
        return self.body(x)


@pytest.mark.parametrize("name", [name for name in LAYER_METHODS if name != "cam"])
@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("body.5", r"'body.5': expected a layer with a map \(N, C, h, w\) larger than 1 x 1, got \(3, 6\)"),
        (
            "body.6",
            r"'body.6': expected a layer with a map .*, got \(3, 4\); name one before the pooling or "
            "flattening, or leave the layer out to have it found",
        ),
        ("other", "'other': the scores do not depend on the layer"),
        (
            "unused",
            "'unused': the layer did not run when the scores were computed; .*, or leave the layer out",
        ),
    ],
)
def test_a_layer_that_cannot_be_looked_at_is_refused(name: str, layer: str, words: str) -> None:
    method = heatmaps.METHODS[name](TwoHeads(), layer)
    with pytest.raises(ValueError, match=words):
        method(images(dtype=np.float32))


def test_a_map_of_one_place_is_none() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(6), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"larger than 1 x 1, got \(3, 4, 1, 1\)"):
        heatmaps.GradCAM(net, "1")(X)


def test_a_layer_that_is_not_in_the_model_is_refused_with_those_near_it() -> None:
    model = Classifier(TinyBackbone((4, 8, 8)), 3)
    with pytest.raises(ValueError, match=r"has no layer 'backbone.stage.1'; near it are 'backbone.stages.1', "):
        heatmaps.GradCAM(model, "backbone.stage.1")
    with pytest.raises(ValueError, match=r"has no layer 'xyz'; its parts are 'backbone', 'fc'$"):
        heatmaps.GradCAM(model, "xyz")
    with pytest.raises(ValueError, match="expected a part of the Classifier or its path, got Linear, which is none"):
        heatmaps.GradCAM(model, nn.Linear(2, 2))
    with pytest.raises(ValueError, match="expected a part of the Classifier or its path, got int"):
        heatmaps.GradCAM(model, 3)
    with pytest.raises(ValueError, match="SmoothGrad: its map is of the image itself, expected no layer"):
        heatmaps.SmoothGrad(model, "backbone")


@pytest.mark.parametrize(
    ("net", "seen"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), "found no layer with a map"),
        (nn.Sequential(nn.Conv2d(3, 2, 8), nn.Flatten()), "found 0 1 x 1"),
    ],
)
def test_a_network_without_a_map_is_refused_with_what_was_found(net, seen: str) -> None:
    with pytest.raises(ValueError, match=f"expected a convolution whose map is larger than 1 x 1, {seen}"):
        heatmaps.GradCAM(net)(X)


@pytest.mark.parametrize(
    ("net", "layer", "words"),
    [
        (flat_net(), None, r"found that Linear '10' reads \(3, 7\), which are not the means or maxima of the layer's"),
        (gap_net(), "3", r"found that Linear '6' reads \(3, 6\), which are not the means"),  # before the ReLU
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.GlobalAvgPool2d(), nn.Linear(4, 2), nn.Softmax(1)),
            None,
            "found no Linear that gives the scores",
        ),
    ],
)
def test_cam_says_what_it_needs(net, layer, words: str) -> None:
    with pytest.raises(ValueError, match=r"ends in this layer -> global pooling -> one Linear \(GradCAM explains any"):
        heatmaps.CAM(net, layer)(X)
    with pytest.raises(ValueError, match=words):
        heatmaps.CAM(net, layer)(X)


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("name", heatmaps.METHODS)
@pytest.mark.parametrize(
    ("class_index", "words"),
    [
        (4, "class_index: expected 0 to 3, .* got 4; labels that count from 1 need label - 1"),
        (-1, "expected 0 to 3, .* got -1"),
        ([0, 1, 9], "got 9"),
        ([0, 1], r"expected a whole number, \(3,\) of them or None, got int64 of shape \(2,\)"),
        (1.0, r"got float64 of shape \(\)"),
        (True, "got bool"),
    ],
)
def test_a_class_that_does_not_exist_is_refused(name: str, class_index, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        heatmaps.METHODS[name](gap_net())(X, class_index)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (X[0], r"expected floats \(N, 3, H, W\) in \[0, 1\], got \(3, 8, 8\) float64; looks like one image, use x"),
        ((X * 255).astype(np.uint8), r"got \(3, 3, 8, 8\) uint8"),
        ([[1.0]], "got list"),
    ],
)
def test_images_of_another_kind_are_refused(x, words: str) -> None:
    for method in (heatmaps.GradCAM, heatmaps.Gradient):
        with pytest.raises(ValueError, match=words):
            method(gap_net())(x)


def test_a_model_without_scores_is_refused() -> None:
    class Detector(nn.Module):
        def forward(self, x):
            return [{"boxes": None}]

    with pytest.raises(ValueError, match=r"Detector: expected the scores of classes \(N, K\), got list; give the"):
        heatmaps.Gradient(Detector())(X)
    with pytest.raises(ValueError, match=r"Conv2d: expected the scores .*, got a Tensor \(1, 2, 6, 6\)"):
        heatmaps.GradCAM(nn.Conv2d(3, 2, 3).to(np.float64))(X)


@pytest.mark.parametrize("name", heatmaps.METHODS)
def test_values_that_are_not_finite_are_refused_with_the_image(name: str) -> None:
    broken = X.copy()
    broken[1, 0, 2, 2] = np.nan
    with pytest.raises(ValueError, match="expected finite scores, got NaN or infinity for image 1 of the batch"):
        heatmaps.METHODS[name](gap_net())(broken, 1)


@pytest.mark.parametrize("name", heatmaps.METHODS)
def test_an_infinite_score_is_refused_and_that_of_another_class_does_not_matter(name: str) -> None:
    net = gap_net()
    net[6].bias.data[1] = np.inf
    with pytest.raises(ValueError, match="expected finite scores, got NaN or infinity for image 0, 1, 2 of the batch"):
        heatmaps.METHODS[name](net)(X, 1)
    assert np.isfinite(heatmaps.METHODS[name](net)(X, 2)).all()


def test_activations_of_zero_give_maps_of_zero() -> None:
    net = gap_net()
    net[3].weight.data[...] = 0
    net[3].bias.data[...] = -1
    for name in LAYER_METHODS:
        assert (heatmaps.METHODS[name](net)(X, 1) == 0).all(), name
    assert (heatmaps.Gradient(net)(X, 1) == 0).all()
    assert (heatmaps.resize_map(heatmaps.GradCAM(net)(X, 1), (16, 16)) == 0).all()


# -------------------------------------------------------------------------------------- nothing is modified


def state_of(model: nn.Module) -> dict:
    return {
        "values": {name: array.copy() for name, array in model.state_dict().items()},
        "arrays": {name: id(array) for name, array in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "hooks": [list(module._hooks) for module in model.modules()],
        "grads": [id(p.grad) for p in model.parameters()],
        "wanted": [p.requires_grad for p in model.parameters()],
        "tensor hooks": [p.hooks for p in model.parameters()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
    }


def assert_unchanged(model: nn.Module, before: dict) -> None:
    after = state_of(model)
    for name, values in before.pop("values").items():
        np.testing.assert_array_equal(after["values"][name], values, name)
    del after["values"]
    assert after == before


def used_model(name: str) -> nn.Module:
    """In a state that is easily lost: mixed modes, some parameters frozen, gradients collected, hooks of its own."""
    model = gap_net() if name == "cam" else flat_net()
    model(Tensor(X)).sum().backward()
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[4].register_forward_hook(lambda *call: None)
    return model


@pytest.mark.parametrize("name", heatmaps.METHODS)
def test_the_model_is_left_as_it_was(name: str) -> None:
    model = used_model(name)
    before = state_of(model)
    heatmaps.METHODS[name](model)(X)
    assert_unchanged(model, before)


@pytest.mark.parametrize("name", heatmaps.METHODS)
@pytest.mark.parametrize("last_call", [1, 2, 4])
def test_the_model_is_left_as_it_was_after_an_error_too(name: str, last_call: int) -> None:
    """A layer fails in its first pass, in which the layer is found, or in one of those that make the map."""
    model = used_model(name)
    calls = []

    def fail(*call) -> None:
        calls.append(call)
        if len(calls) >= last_call:
            raise KeyboardInterrupt

    model[4 if name == "cam" else 5].register_forward_hook(fail)
    before = state_of(model)
    method = heatmaps.METHODS[name](model)
    for _ in range(last_call):
        try:
            method(X, 1)
        except KeyboardInterrupt:
            break
    else:
        pytest.fail("the layer did not fail")
    assert_unchanged(model, before)
    before = state_of(model)
    with pytest.raises((ValueError, KeyboardInterrupt)):
        method(X, 99)
    assert_unchanged(model, before)


def test_two_threads_look_one_after_the_other() -> None:
    """At once, each would find the other's modes and frozen parameters, and put these back for good."""
    model, maps = used_model("gradcam"), []
    before, expected = state_of(model), heatmaps.GradCAM(model)(X, 1)
    inside, go_on = threading.Event(), threading.Event()

    def first() -> None:
        with at_rest(model):
            inside.set()
            go_on.wait(30)

    def second() -> None:
        maps.append(heatmaps.GradCAM(model)(X, 1))

    threads = [threading.Thread(target=target) for target in (first, second)]
    threads[0].start()
    inside.wait(30)
    threads[1].start()
    threads[1].join(0.5)
    assert not maps
    go_on.set()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(maps, [expected])
    assert_unchanged(model, before)


def test_below_the_layer_nothing_is_recorded() -> None:
    """Grad-CAM of a large network must not keep every activation for a backward pass that never comes there."""
    model, kept = flat_net(), []
    model[1].register_forward_hook(lambda module, inputs, output: kept.append(output.node))
    heatmaps.GradCAM(model)(X, 1)
    assert kept
    assert set(kept) == {None}
