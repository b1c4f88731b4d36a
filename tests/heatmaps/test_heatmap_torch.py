"""The maps of a small network against those that torch's hooks give."""

import numpy as np
import pytest
from heatmap_nets import flat_net, images

from minidet import heatmaps

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def nets():
    """(ours, torch's) with the same weights."""
    ours = flat_net()
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3, padding=1), torch.nn.BatchNorm2d(5), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(5, 6, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(96, 7),
        torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(7, 4),
    )  # fmt: skip
    theirs = theirs.double().eval()
    theirs.load_state_dict({name: torch.tensor(np.asarray(array)) for name, array in ours.state_dict().items()})
    return ours, theirs


def torch_look(net, x, classes):
    """(A, G) of layer 5 by forward and backward hooks."""
    kept = {}
    removers = [
        net[5].register_forward_hook(lambda module, inputs, output: kept.update(A=output)),
        net[5].register_full_backward_hook(lambda module, inputs, outputs: kept.update(G=outputs[0])),
    ]
    scores = net(torch.from_numpy(x).requires_grad_())
    scores[torch.arange(len(x)), torch.from_numpy(classes)].sum().backward()
    for remover in removers:
        remover.remove()
    return kept["A"].detach(), kept["G"]


def test_the_gradient_methods_are_those_of_torch_with_hooks(nets) -> None:
    ours, theirs = nets
    x, classes = images(), np.array([2, 0, 3])
    A, G = torch_look(theirs, x, classes)
    total = A.sum(dim=(2, 3), keepdim=True)
    alpha = torch.where(G != 0, G**2 / (2 * G**2 + total * G**3), 0)
    expected = {
        "gradcam": (G.mean(dim=(2, 3), keepdim=True) * A).sum(dim=1),
        "gradcam++": ((alpha * G.relu()).sum(dim=(2, 3), keepdim=True) * A).sum(dim=1),
        "xgradcam": ((G * A / total).nan_to_num(0).sum(dim=(2, 3), keepdim=True) * A).sum(dim=1),
        "hirescam": (G * A).sum(dim=1),
        "layercam": (G.relu() * A).sum(dim=1),
    }
    for name, maps in expected.items():
        got = heatmaps.METHODS[name](ours)(x, classes)
        np.testing.assert_allclose(
            got, maps.relu().numpy(), rtol=1e-5, atol=1e-6 * float(maps.abs().max()), err_msg=name
        )


def test_gradient_and_guided_backpropagation_are_those_of_torch(nets) -> None:
    ours, theirs = nets
    x, classes = images(), np.array([2, 0, 3])

    def saliency():
        leaf = torch.from_numpy(x).clone().requires_grad_()
        theirs(leaf)[torch.arange(3), torch.from_numpy(classes)].sum().backward()
        return leaf.grad.abs().amax(dim=1).numpy()

    np.testing.assert_allclose(heatmaps.Gradient(ours)(x, classes), saliency(), rtol=1e-5, atol=1e-8)
    relus = [module for module in theirs if isinstance(module, torch.nn.ReLU)]
    # Of a ReLU the gradient below is that above where x > 0: cutting it off below is cutting it off above.
    removers = [relu.register_full_backward_hook(lambda module, below, above: (below[0].relu(),)) for relu in relus]
    np.testing.assert_allclose(heatmaps.GuidedBackpropagation(ours)(x, classes), saliency(), rtol=1e-5, atol=1e-8)
    for remover in removers:
        remover.remove()
