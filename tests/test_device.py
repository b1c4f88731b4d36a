"""minidet on the GPU, which here is the emulator: the values and gradients of the CPU, and refusals that help."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

import minidet
import minidet.functional as F
from minidet import Tensor, nn, optim
from minidet.array_file import read_arrays
from minidet.backbones import TinyBackbone
from minidet.cli import main
from minidet.data.dataset import Sample
from minidet.device import to_numpy
from minidet.models.wsol import WeakLocalizer
from minidet.random import manual_seed
from minidet.training import Training, load_system
from minidet_kernels import emulator
from tests.autograd.cases import CASES, Case

needs_emulator = pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not()))

# Small enough for the emulator, which needs seconds a step.
SETTINGS = ["size=32", "epochs=1", "batch_size=2", "images=6", "val_images=2", "test_images=2"]
SET_OPTIONS = [part for setting in SETTINGS for part in ("--set", setting)]


@pytest.fixture
def gpu() -> Iterator[None]:
    with emulator.emulated():
        yield


def assert_close(got, expected, tolerance: float = 1e-4) -> None:
    """To the tolerance, measured by the largest number of the array."""
    got, expected = to_numpy(got), np.asarray(expected)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    scale = np.abs(expected).max(initial=0) or 1
    np.testing.assert_allclose(got / scale, expected / scale, rtol=0, atol=tolerance)


# ------------------------------------------------------------------------------------------------- Tensors


@needs_emulator
def test_a_tensor_goes_to_the_gpu_and_back(gpu) -> None:
    x = minidet.tensor([[1.0, 2.0]])
    there = x.to("cuda")
    assert (x.device, there.device, there.cpu().device) == ("cpu", "cuda", "cpu")
    assert there.to("cuda") is there
    assert x.cuda().cpu().numpy().tolist() == [[1, 2]]
    assert minidet.tensor([1, 2], device="cuda").device == "cuda"
    assert minidet.tensor(there.data).device == "cuda"
    assert minidet.tensor(there, device="cpu").numpy().tolist() == [[1, 2]]
    assert x.to(np.float64).dtype == np.float64
    assert repr(there) == "tensor([[1., 2.]], shape=(1, 2), dtype=float32, device=cuda)"


@needs_emulator
def test_gradients_cross_from_device_to_device_both_ways(gpu) -> None:
    x = minidet.tensor([1.0, 2.0], requires_grad=True)
    y = (x.cuda() ** 3).cpu() * x
    y.sum().backward()
    assert x.grad.device == "cpu"
    assert x.grad.numpy().tolist() == [4, 32]
    there = minidet.tensor([1.0, 2.0], requires_grad=True, device="cuda")
    (gradient,) = minidet.grad((there**3).sum(), there, create_graph=True)
    gradient.sum().backward()
    assert there.grad.cpu().numpy().tolist() == [6, 12]


@needs_emulator
@pytest.mark.parametrize(
    ("mix", "words"),
    [
        (lambda x, y: x + y, "Add: expected all operands on one device, got cuda and cpu; move them with x.to"),
        (lambda x, y: y * x, "Multiply: expected all operands on one device, got cpu and cuda"),
        (lambda x, y: y.data * x, "Multiply: expected all operands on one device"),
        (lambda x, y: x @ y, "MatMul: expected all operands on one device"),
        (lambda x, y: F.concatenate([x, y]), "Concatenate: expected all operands on one device"),
        (lambda x, y: F.maximum(y, x), "Maximum: expected all operands on one device"),
        (lambda x, y: F.linear(x, y), "Linear: expected all operands on one device"),
        (lambda x, y: F.conv2d(x[None, None], y[None, None]), "Conv2d: expected all operands on one device"),
        (lambda x, y: F.mse_loss(x, y), "Subtract: expected all operands on one device"),
        (lambda x, y: nn.Linear(2, 2)(x), "Linear: expected all operands on one device.* model.to"),
        (lambda x, y: y[x > 0], "Index: expected all operands on one device"),
        (lambda x, y: x.numpy(), r"expected a Tensor on the CPU, got \(2, 2\) on cuda; .*x.cpu\(\).numpy\(\)"),
        (lambda x, y: np.asarray(x), r"expected a Tensor on the CPU, got \(2, 2\) on cuda"),
        (lambda x, y: (x * x).backward(y), r"expected a gradient on cuda, .* use gradient.to\('cuda'\)"),
    ],
)
def test_mixed_devices_are_refused_with_what_to_do(gpu, mix, words) -> None:
    x = minidet.tensor(np.ones((2, 2), np.float32), device="cuda")
    y = minidet.tensor(np.ones((2, 2), np.float32))
    x.requires_grad_(mix.__code__.co_names == ("backward",))
    with pytest.raises(TypeError, match=words):
        mix(x, y)


def test_another_error_than_a_mixture_stays_itself() -> None:
    with pytest.raises(ValueError, match="matmul: expected"):
        minidet.tensor(np.ones((2, 3))) @ minidet.tensor(np.ones((2, 3)))


@needs_emulator
def test_labels_masks_and_indices_may_stay_on_the_cpu(gpu) -> None:
    x = minidet.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    there, mask, labels = x.cuda(), np.array([[True, False, True], [False, True, False]]), np.array([2, 0])
    with emulator.counted() as counts:
        results = [
            (F.cross_entropy(there, labels), F.cross_entropy(x, labels)),
            (F.multi_margin_loss(there, labels), F.multi_margin_loss(x, labels)),
            (F.where(mask, there, 0.0), F.where(mask, x, 0.0)),
            (F.take_along_axis(there, labels[:, None], 1), F.take_along_axis(x, labels[:, None], 1)),
            (there[[0, 1], labels], x[[0, 1], labels]),
        ]
    assert counts.waits == 0
    for got, expected in results:
        assert got.device == "cuda"
        assert_close(got.data, expected.data, 1e-6)
    with pytest.raises(ValueError, match="expected classes 0 to 2, got 0 to 3"):
        F.cross_entropy(there, minidet.tensor([3, 0], device="cuda"))


@pytest.mark.skipif(minidet.device.why_no_gpu() is None, reason="there is a GPU")
def test_without_a_gpu_the_reason_is_told() -> None:
    for act in (minidet.tensor([1.0]).cuda, nn.Linear(1, 1).cuda, lambda: minidet.tensor([1.0], device="cuda")):
        with pytest.raises(RuntimeError, match="device 'cuda': no GPU can be used: cupy"):
            act()
    with pytest.raises(ValueError, match="to: expected 'cpu', 'cuda' or a dtype, got 'gpu'"):
        minidet.tensor([1.0]).to("gpu")
    with pytest.raises(ValueError, match="expected device 'cpu' or 'cuda', got 'cuda:0'"):
        minidet.tensor([1.0], device="cuda:0")


# ------------------------------------------------------------------------------------ functions and layers

# Cases that give a constant, which is neither label nor index nor box, as an array on the CPU; and one that goes there.
ON_THE_CPU = {
    "MatMul an array by a Tensor", "F.batch_norm evaluation", "F.smooth_l1_loss beta 0.7", "RoIPoolScatter",
    "RoIPoolGather", "RoIAlignAdjoint", "ToDevice",
}  # fmt: skip
NO_CUDA_VERSION = "has no cuda version"


@needs_emulator
@pytest.mark.parametrize("case", [case for case in CASES if case.name not in ON_THE_CPU], ids=lambda c: c.name)
def test_every_function_and_its_gradients_are_those_of_the_cpu(gpu, case: Case) -> None:
    def run(device: str) -> list[Tensor]:
        inputs = [
            minidet.tensor(x, requires_grad=x.dtype == np.float64, device=device) if isinstance(x, np.ndarray) else x
            for x in case.inputs()
        ]
        inputs = [x if not isinstance(x, Tensor) or x.requires_grad else x.data for x in inputs]
        leaves = [x for x in inputs if isinstance(x, Tensor)]
        y = case.call(*inputs)
        cotangent = np.random.default_rng(1).standard_normal(y.shape)
        gradients = minidet.grad(y, leaves, minidet.tensor(cotangent, device=device), create_graph=True)
        squares = sum(((gradient * gradient).sum() for gradient in gradients), start=(y * y).sum())
        return [y, *gradients, *minidet.grad(squares, leaves)]

    expected = run("cpu")
    try:
        results = run("cuda")
    except RuntimeError as error:
        if NO_CUDA_VERSION in str(error):
            pytest.skip(str(error))
        raise
    for got, value in zip(results, expected, strict=True):
        assert got.device == "cuda"
        assert_close(got.data, value.data, 1e-9)


class EveryLayer(nn.Module):
    """Every layer of minidet.nn once, for images (N, 3, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.ConvNormReLU(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
            nn.FrozenBatchNorm2d(4), nn.MaxPool2d(2), nn.LeakyReLU(0.1),
            nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), nn.LocalResponseNorm(3), nn.Tanh(), nn.AvgPool2d(2),
            nn.AdaptiveAvgPool2d(3), nn.Dropout(0.3), nn.Identity(),
        )  # fmt: skip
        self.heads = nn.ModuleList([nn.GlobalAvgPool2d(), nn.GlobalMaxPool2d(), nn.Flatten()])
        self.fc = nn.Linear(6 + 6 + 54, 5)
        self.ends = nn.ModuleList([nn.Sigmoid(), nn.Softmax(1)])

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        y = self.fc(F.concatenate([head(features) for head in self.heads], axis=1))
        return sum((end(y) * end(y) for end in self.ends), start=y)


def layer_classes() -> set[str]:
    classes = {name for name in nn.__all__ if isinstance(getattr(nn, name), type)}
    return {name for name in classes if issubclass(getattr(nn, name), nn.Module)} - {"Module"}


@needs_emulator
@pytest.mark.parametrize("training", [True, False])
def test_every_layer_computes_what_it_does_on_the_cpu(gpu, training: bool) -> None:
    assert {type(module).__name__ for module in EveryLayer().modules()} >= layer_classes()
    x = np.random.default_rng(0).standard_normal((3, 3, 8, 8), np.float32)
    networks, results, inputs = [], [], []
    for device in ("cpu", "cuda"):
        manual_seed(5)
        network = EveryLayer().to(device).train(training)
        inputs.append(minidet.tensor(x, requires_grad=True, device=device))
        results.append(network(inputs[-1]))
        (results[-1] ** 2).sum().backward()
        networks.append(network)
    here, there = networks
    assert (here.device, there.device) == ("cpu", "cuda")
    assert_close(results[1].data, results[0].data)
    assert_close(inputs[1].grad.data, inputs[0].grad.data)
    for (name, p), q in zip(here.named_parameters(), there.parameters(), strict=True):
        assert q.grad.device == "cuda", name
        assert_close(q.grad.data, p.grad.data)
    for key, array in there.state_dict().items():  # running means too
        assert_close(array, here.state_dict()[key])


@needs_emulator
def test_a_state_goes_from_device_to_device(gpu, tmp_path) -> None:
    manual_seed(1)
    here, there = nn.BatchNorm2d(3), nn.BatchNorm2d(3).cuda()
    here.running_mean += 5
    there.load_state_dict(here.state_dict())
    assert there.device == "cuda"
    assert to_numpy(there.running_mean).tolist() == [5, 5, 5]
    there.running_mean += 1
    here.load_state_dict(there.state_dict())
    assert here.running_mean.tolist() == [6, 6, 6]
    assert isinstance(here.running_mean, np.ndarray)
    assert isinstance(there.cpu().num_batches_tracked, np.ndarray)
    nn.init.constant_(nn.Linear(2, 2).cuda().weight, 3.0)


# ------------------------------------------------------------------------------------------------- training


def small_training(device: str, *overrides: str, name: str = "localizer") -> Training:
    system = load_system(name)
    settings = system.configure(["size=16", "batch_size=4", "epochs=3", "warmup=1", *overrides])
    rng, size = np.random.default_rng(0), settings["size"]
    box = np.array([[0.25, 0.25, 0.75, 0.75]]) * size
    samples = [
        Sample(rng.integers(0, 256, (size, size, 3), np.uint8), box.copy(), np.ones(1, np.int64)) for _ in range(4)
    ]
    training = Training(system, settings, ("__background__", "thing", "other"), samples, seed=0, device=device)
    training.begin_epoch()
    return training


@needs_emulator
@pytest.mark.parametrize(
    ("name", "overrides"), [("localizer", []), ("wsol", ["pooling=gap"]), ("wsol", ["pooling=gmp", "stride=8"])]
)
def test_a_system_learns_on_the_gpu_what_it_learns_on_the_cpu(gpu, name, overrides) -> None:
    """Three steps: losses, all gradients, weights and averages. Each step waits for the GPU once, to read its losses
    and the length of its gradient together."""
    here, there = (small_training(device, "optimizer=sgd", *overrides, name=name) for device in ("cpu", "cuda"))
    for _ in range(3):
        expected = here.step(next(iter(here.loader)))
        batch = next(iter(there.loader))
        with emulator.counted() as counts:
            losses = there.step(batch)
        assert counts.waits == 1
        assert losses == pytest.approx(expected, rel=1e-4)
        for (name, p), q in zip(here.model.named_parameters(), there.model.parameters(), strict=True):
            assert q.grad.device == "cuda", name
            assert_close(q.grad.data, p.grad.data)
    for name, array in there.model.state_dict().items():
        assert_close(array, here.model.state_dict()[name])


@needs_emulator
def test_boxes_around_class_activation_maps_are_those_of_the_cpu(gpu) -> None:
    manual_seed(0)
    model = WeakLocalizer(TinyBackbone((4, 8)), 3, 16, cam_channels=8).eval()
    model.fc.weight.data[...] = np.random.default_rng(0).normal(size=(3, 8))
    images = minidet.tensor(np.random.default_rng(1).random((2, 3, 16, 16), dtype=np.float32))
    here = model.localize(images, np.array([2, 1]))
    there = model.to("cuda").localize(images.to("cuda"), np.array([2, 1]))
    for got, expected in zip(there, here, strict=True):
        for name, array in expected.items():
            assert type(got[name]) is np.ndarray
            assert_close(got[name], array)


@needs_emulator
@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, 0.1, 0.9), lambda p: optim.AdamW(p, 0.1)])
def test_an_optimiser_updates_on_the_gpu_without_a_wait(gpu, make) -> None:
    weights = []
    for device in ("cpu", "cuda"):
        manual_seed(0)
        layer = nn.Linear(3, 2).to(device)
        optimizer = make(layer.named_parameters())
        for _ in range(2):
            (layer(minidet.tensor(np.ones((1, 3), np.float32), device=device)) ** 2).sum().backward()
            with emulator.counted() as counts:
                optimizer.step()
            assert counts.waits == 0
        weights.append(layer.weight.data)
        fresh = make(layer.named_parameters())
        fresh.load_state_dict({key: to_numpy(value) for key, value in optimizer.state_dict().items()})
        assert all(
            layer.device == minidet.device.device_of(a) for state in fresh.state.values() for a in state.values()
        )
    assert_close(weights[1], weights[0], 1e-5)


@needs_emulator
def test_an_optimiser_made_before_the_model_moved_says_so(gpu) -> None:
    layer = nn.Linear(3, 2)
    optimizer = optim.SGD(layer.named_parameters(), 0.1)
    layer.cuda()
    layer(minidet.tensor(np.ones((1, 3), np.float32), device="cuda")).sum().backward()
    with pytest.raises(TypeError, match=r"expected 'weight' on cpu, .* make the optimiser after model.to\('cuda'\)"):
        optimizer.step()
    assert optimizer.steps == {"weight": 0, "bias": 0}


@needs_emulator
def test_a_step_that_is_not_finite_is_explained_on_the_gpu_too(gpu) -> None:
    training = small_training("cuda")
    batch = next(iter(training.loader))
    batch.images[0, 0, 0, 0] = np.inf
    with pytest.raises(minidet.training.RefusedStepError, match=r"first non-finite value: .* \(forward\) made"):
        training.step(batch)


# ----------------------------------------------------------------------------------------- the command line


@needs_emulator
def test_a_run_begun_on_the_gpu_goes_on_on_the_cpu(tmp_path, capsys, monkeypatch) -> None:
    out, step = tmp_path / "run", Training.step

    def interrupted(self: Training, batch) -> dict[str, float]:
        assert self.model.device == "cuda"
        if self.progress.step == 1:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(Training, "step", interrupted)
    monkeypatch.setattr("minidet.training.loop.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("minidet.training.loop.train.__defaults__", (None, False, False, 0.0, "cpu"))
    assert main(["train", "localizer", "--device", "emulated", "--out", str(out), *SET_OPTIONS]) == 130
    arrays, _ = read_arrays(sorted((out / "checkpoints").glob("*.safetensors"))[-1])
    assert all(type(array) is np.ndarray for array in arrays.values())
    assert json.loads((out / "environment.json").read_text())["device"] == "emulated"
    monkeypatch.setattr(Training, "step", step)
    assert main(["train", "localizer", "--out", str(out), "--resume"]) == 0
    assert "note: device was emulated and is cpu since the run began" in capsys.readouterr().out

    whole = tmp_path / "whole"
    assert main(["train", "localizer", "--out", str(whole), "--data", str(out / "data"), *SET_OPTIONS]) == 0
    for name, array in read_arrays(whole / "last.safetensors")[0].items():
        assert_close(read_arrays(out / "last.safetensors")[0][name], array, 1e-3)

    assert main(["eval", str(out), "--device", "emulated"]) == 0
    found = json.loads((out / "eval-test" / "metrics.json").read_text())
    metrics = json.loads((out / "metrics.json").read_text())
    assert found["mean_iou"] == pytest.approx(metrics["mean_iou"], abs=1e-4)
    image = str(next((out / "data").rglob("test/*.png")))
    boxes = []
    for device in ("cpu", "emulated"):
        assert main(["predict", str(out), image, "--device", device, "--out", str(tmp_path / device)]) == 0
        (picture,) = json.loads((tmp_path / device / "predictions.json").read_text())
        boxes.append(picture["objects"][0]["box"])
    assert boxes[1] == pytest.approx(boxes[0], abs=1e-2)
    assert not minidet.device.is_emulated()  # the command has tidied up
