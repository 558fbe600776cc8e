"""Losses against values computed by hand."""

import math

import pytest
import torch

from mmseg_crackssm.models.losses import (
    CrackBCELoss,
    CrackDiceLoss,
    CrackDirectionLoss,
    direction_target,
)


def logit(p):
    return math.log(p / (1 - p))


@pytest.fixture
def example():
    """Two crack pixels, one background, one ignored."""
    prob = torch.tensor([[0.9, 0.6], [0.2, 0.99]])
    logits = torch.logit(prob)[None, None].requires_grad_()
    label = torch.tensor([[[1, 1], [0, 255]]])
    return logits, label


def test_bce_by_hand(example):
    logits, label = example
    expected = -(math.log(0.9) + math.log(0.6) + math.log(0.8)) / 3
    loss = CrackBCELoss(loss_weight=3.0)(logits, label)
    assert loss.item() == pytest.approx(3 * expected, rel=1e-5)


def test_bce_pos_weight_by_hand(example):
    logits, label = example
    expected = -(2 * (math.log(0.9) + math.log(0.6)) + math.log(0.8)) / 3
    loss = CrackBCELoss(pos_weight=2.0)(logits, label)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_dice_by_hand(example):
    logits, label = example
    overlap, total = 0.9 + 0.6, 0.9 + 0.6 + 0.2 + 2
    expected = 1 - (2 * overlap + 1) / (total + 1)
    loss = CrackDiceLoss(loss_weight=0.5)(logits, label)
    assert loss.item() == pytest.approx(0.5 * expected, rel=1e-5)


def test_dice_per_image_averages_images():
    logits = torch.tensor([logit(0.5), logit(0.9)]).view(2, 1, 1, 1)
    label = torch.ones(2, 1, 1, dtype=torch.long)
    losses = [1 - (2 * p + 1) / (p + 1 + 1) for p in (0.5, 0.9)]
    loss = CrackDiceLoss(per_image=True)(logits, label)
    assert loss.item() == pytest.approx(sum(losses) / 2, rel=1e-5)


@pytest.mark.parametrize('loss', [CrackBCELoss(), CrackDiceLoss()])
def test_ignored_pixels_do_not_matter(loss, example):
    logits, label = example
    value = loss(logits, label)
    changed = logits.detach().clone()
    changed[..., 1, 1] = -7.0
    assert loss(changed, label) == value
    loss(logits, label).backward()
    assert logits.grad[..., 1, 1] == 0


@pytest.mark.parametrize(
    'loss', [CrackBCELoss(), CrackDiceLoss(), CrackDiceLoss(per_image=True)]
)
def test_all_ignored_gives_zero(loss):
    logits = torch.randn(2, 1, 4, 4, requires_grad=True)
    value = loss(logits, torch.full((2, 4, 4), 255))
    value.backward()
    assert value.item() == 0
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize('loss', [CrackBCELoss(), CrackDiceLoss()])
def test_wrong_shapes_are_named(loss):
    label = torch.zeros(2, 4, 4, dtype=torch.long)
    with pytest.raises(ValueError, match=r'out_channels=1'):
        loss(torch.zeros(2, 2, 4, 4), label)
    with pytest.raises(ValueError, match=r'sampler'):
        loss(torch.zeros(2, 1, 4, 4), label, weight=torch.ones(1))


@pytest.mark.parametrize(
    'direction, offset',
    [
        ('horizontal', (0, 1)),
        ('vertical', (1, 0)),
        ('diagonal', (1, 1)),
        ('anti_diagonal', (1, -1)),
    ],
)
def test_target_names_the_direction_of_an_edge(direction, offset):
    """On the border pixels of a straight band its direction wins."""
    ys, xs = torch.meshgrid(torch.arange(21), torch.arange(21), indexing='ij')
    distance = offset[0] * (xs - 10) - offset[1] * (ys - 10)
    crack = (distance.abs() <= 1)[None]
    target = direction_target(crack)[0]
    border = (distance.abs() == 1)[5:16, 5:16]
    winner = target.argmax(dim=0)[5:16, 5:16][border]
    index = ('horizontal', 'vertical', 'diagonal', 'anti_diagonal').index(
        direction
    )
    assert (winner == index).all()


def test_target_is_a_distribution_on_cracks_alone():
    crack = torch.rand(2, 9, 11) > 0.6
    total = direction_target(crack).sum(dim=1)
    torch.testing.assert_close(total, crack.float())


def test_target_stays_exact_under_autocast():
    crack = torch.zeros(1, 9, 9)
    crack[0, 4, 2:7] = 1
    with torch.autocast('cpu', dtype=torch.bfloat16):
        target = direction_target(crack)
    torch.testing.assert_close(target, direction_target(crack))


def test_direction_loss_by_hand():
    # A lone pixel's response to each kernel is its centre weight, 0: the
    # target is uniform and the loss the mean negative log-probability.
    label = torch.zeros(1, 5, 5, dtype=torch.long)
    label[0, 2, 2] = 1
    prob = torch.tensor([0.1, 0.2, 0.3, 0.4])
    pred = prob.log().view(1, 4, 1, 1).expand(1, 4, 5, 5)
    expected = -prob.log().mean().item()
    loss = CrackDirectionLoss(loss_weight=0.5)(pred, label)
    assert loss.item() == pytest.approx(0.5 * expected, rel=1e-5)


def test_direction_loss_ignores_background_and_ignored():
    label = torch.zeros(1, 6, 6, dtype=torch.long)
    label[0, 1:3, 1:5] = 1
    label[0, 4] = 255
    pred = torch.randn(1, 4, 6, 6, requires_grad=True)
    CrackDirectionLoss()(pred, label).backward()
    touched = pred.grad.abs().sum(dim=1)[0] > 0
    assert torch.equal(touched, label[0] == 1)


def test_direction_loss_without_cracks_is_zero():
    pred = torch.randn(1, 4, 6, 6, requires_grad=True)
    loss = CrackDirectionLoss()(pred, torch.zeros(1, 6, 6, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert pred.grad.abs().max() == 0


def test_direction_loss_names_a_mismatch():
    loss = CrackDirectionLoss(directions=('horizontal', 'vertical'))
    with pytest.raises(ValueError, match='same directions'):
        loss(torch.zeros(1, 4, 6, 6), torch.zeros(1, 6, 6))
    with pytest.raises(ValueError, match='upwards'):
        CrackDirectionLoss(directions=('upwards',))
