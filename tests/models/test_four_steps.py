"""Faster R-CNN's four steps: what each trains, what it leaves alone, and where its proposals come from."""

import numpy as np
import pytest

import minidet
from minidet import no_grad, watch
from minidet.backbones import TinyBackbone
from minidet.models.four_steps import FourStepFasterRCNN
from tests.models.detector_helpers import TwoConvolutions, scene, small_detector

PARTS = ("rpn_backbone", "backbone", "rpn", "roi_heads")
LEARNS = {1: {"rpn_backbone", "rpn"}, 2: {"backbone", "roi_heads"}, 3: {"rpn"}, 4: {"roi_heads"}}


def four_steps(**options) -> FourStepFasterRCNN:
    joint = small_detector()
    return FourStepFasterRCNN(joint.backbone, TwoConvolutions(), joint.rpn, joint.roi_heads, **options)


def batch(seed: int = 0):
    rng = np.random.default_rng(seed)
    images, targets = zip(*(scene(rng, 40, 48, objects) for objects in (2, 0, 3)), strict=True)
    return list(images), list(targets)


@pytest.mark.parametrize("step", LEARNS)
def test_each_step_trains_its_own_parts(step):
    model = four_steps()
    model.enter(step)
    losses = model(*batch())
    rpns = {"loss_objectness", "loss_rpn_box_reg"}
    assert set(losses) == (rpns if step in (1, 3) else {"loss_classifier", "loss_box_reg"})
    sum(losses.values(), start=minidet.Tensor(np.float32(0))).backward()
    for part in PARTS:
        gradients = [p.grad for p in getattr(model, part).parameters()]
        assert all((gradient is not None) == (part in LEARNS[step]) for gradient in gradients), part


@pytest.mark.parametrize(("step", "shared"), [(1, False), (2, False), (3, True), (4, True)])
def test_the_rpn_looks_at_its_own_backbone_until_it_shares_one(step, shared):
    model = four_steps().eval()
    model.enter(step)
    images, _ = batch()
    with no_grad():
        before = model(images)
        model.rpn_backbone.first.weight.data[...] *= -1
        after = model(images)
    same = all(np.array_equal(a["boxes"], b["boxes"]) for a, b in zip(before, after, strict=True))
    assert same == shared


def test_the_lectures_first_step_leaves_the_backbone_as_it_is():
    model = four_steps(freeze_first=True)
    sum(model(*batch()).values(), start=minidet.Tensor(np.float32(0))).backward()
    assert all(parameter.grad is None for parameter in model.rpn_backbone.parameters())
    assert all(parameter.grad is not None for parameter in model.rpn.parameters())


def test_a_frozen_rpn_proposes_as_many_as_training_wants():
    model = four_steps()
    model.rpn.post_nms = (7, 5)
    model.enter(2)
    counts = {}
    for training in (True, False):
        model.train(training)
        with watch.listen(lambda event, t=training: counts.setdefault((t, event.name), event.value)):
            model(*batch())
    assert [len(boxes) for boxes in counts[True, "rpn.proposals"]] == [7, 7, 7]
    assert [len(boxes) for boxes in counts[False, "rpn.proposals"]] == [5, 5, 5]


@pytest.mark.parametrize("freeze_first", [False, True])
def test_what_a_step_does_not_train_keeps_its_averages(freeze_first):
    """Two batches in training behaviour: the batch norms of what learns move on, the others stay."""
    joint, backbones = small_detector(), [TinyBackbone((4, 8), 4) for _ in range(2)]
    model = FourStepFasterRCNN(*backbones, joint.rpn, joint.roi_heads, freeze_first)
    learns = {1: set() if freeze_first else {"rpn_backbone"}, 2: {"backbone"}, 3: set(), 4: set()}
    for step, expected in learns.items():
        model.enter(step)
        model.train()
        before = {name: array.copy() for name, array in model.state_dict().items() if "running" in name}
        model(*batch())
        moved = {name for name, array in model.state_dict().items() if name in before and (array != before[name]).any()}
        assert {name.split(".")[0] for name in moved} == expected


def test_in_the_end_it_is_a_faster_rcnn():
    model, joint = four_steps().eval(), small_detector().eval()
    model.enter(4)
    images, _ = batch()
    with no_grad():
        for found, expected in zip(model(images), joint(images), strict=True):
            np.testing.assert_array_equal(found["boxes"], expected["boxes"])


def test_fast_rcnn_learns_on_the_proposals_of_the_step_before():
    model = four_steps()
    heard = {}
    images, targets = batch()
    for step in (2, 4):
        model.enter(step)
        with watch.listen(lambda event, step=step: heard.setdefault((step, event.name), event.value)):
            model(images, targets)
    assert not np.array_equal(heard[2, "rpn.proposals"][0], heard[4, "rpn.proposals"][0])


def test_the_step_is_part_of_the_state():
    model, other = four_steps(), four_steps()
    model.enter(3)
    other.load_state_dict(model.state_dict())
    assert int(other.step) == 3
    for part in PARTS:  # and what it does not train is frozen
        assert {p.requires_grad for p in getattr(other, part).parameters()} == {part in LEARNS[3]}


def test_there_are_four():
    with pytest.raises(ValueError, match="expected a step from 1 to 4, got 5"):
        four_steps().enter(5)
