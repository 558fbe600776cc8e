"""Losses of a one-channel (crack or not) segmentation."""

import torch.nn as nn
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor


def check_binary_input(logits: Tensor, label: Tensor) -> None:
    """Raise unless the shapes are (B, 1, H, W) and (B, H, W).

    Raises:
        ValueError: Naming both shapes and the remedy.
    """
    if logits.shape[1] != 1 or logits.shape[2:] != label.shape[1:]:
        raise ValueError(
            'crack losses: expected logits (B, 1, H, W) and labels '
            f'(B, H, W), got {tuple(logits.shape)} and {tuple(label.shape)}. '
            'Set out_channels=1 in the decode head.'
        )


def crack_accuracy(
    logits: Tensor, label: Tensor, ignore_index: int, threshold: float
) -> Tensor:
    """Share of the pixels that are told right, in percent.

    Args:
        logits: (B, 1, H, W).
        label: (B, H, W), 1 for crack, 0 for background.
        ignore_index: Label of the pixels to leave out.
        threshold: Probability from which a pixel is predicted crack.

    Returns:
        A scalar; 0 if every pixel is ignored.
    """
    valid = label != ignore_index
    hit = (logits.squeeze(1).sigmoid() > threshold) == (label == 1)
    return 100.0 * (hit & valid).sum() / valid.sum().clamp(min=1)


def masked_bce(
    logits: Tensor, label: Tensor, ignore_index: int, pos_weight: float = 1.0
) -> Tensor:
    """Binary cross-entropy, averaged over the pixels that are not ignored.

    Args:
        logits: (B, 1, H, W).
        label: (B, H, W), 1 for crack, 0 for background.
        ignore_index: Label of the pixels to leave out.
        pos_weight: Weight of a crack pixel.

    Returns:
        A scalar; 0 (with zero gradient) if every pixel is ignored.
    """
    logits = logits.squeeze(1).float()
    valid = (label != ignore_index).to(logits)
    return _weighted_bce(logits, (label == 1).to(logits), valid, pos_weight)


def coarse_bce(logits: Tensor, label: Tensor, ignore_index: int) -> Tensor:
    """Binary cross-entropy of a coarser map against the share of crack.

    Each of its pixels covers a square of the label; its target, in [0, 1],
    is the share of crack in what is not ignored there (CrackMamba, eq. 16).

    Args:
        logits: (B, 1, h, w), with h = ⌈H / s⌉ and w = ⌈W / s⌉ for a whole
            stride s.
        label: (B, H, W), 1 for crack, 0 for background.
        ignore_index: Label of the pixels to leave out.

    Returns:
        A scalar, averaged over the pixels that are not ignored; 0 (with zero
        gradient) if every pixel is.

    Raises:
        ValueError: If there is no such stride.
    """
    logits = logits.squeeze(1).float()
    stride = -(-label.shape[-2] // logits.shape[-2])
    if logits.shape[1:] != tuple(-(-n // stride) for n in label.shape[1:]):
        raise ValueError(
            'coarse_bce: expected logits of the size of the label divided by '
            f'a whole stride, got {tuple(logits.shape[1:])} for labels of '
            f'{tuple(label.shape[1:])}'
        )
    valid = (label != ignore_index).to(logits)
    crack = (label == 1).to(logits)
    weight, share = (
        F.avg_pool2d(x[:, None], stride, ceil_mode=True).squeeze(1)
        for x in (valid, crack)
    )
    return _weighted_bce(logits, share / weight.clamp(min=1e-6), weight)


def _weighted_bce(
    logits: Tensor, target: Tensor, weight: Tensor, pos_weight: float = 1.0
) -> Tensor:
    loss = F.binary_cross_entropy_with_logits(
        logits,
        target,
        weight=weight,
        pos_weight=logits.new_tensor(pos_weight),
        reduction='sum',
    )
    return loss / weight.sum().clamp(min=1)


def soft_dice_loss(
    logits: Tensor,
    label: Tensor,
    ignore_index: int,
    smooth: float = 1.0,
    per_image: bool = False,
) -> Tensor:
    """1 − soft Dice of the crack class, ignored pixels left out.

    Dice = (2 Σ p·g + smooth) / (Σ p + Σ g + smooth).

    Args:
        logits: (B, 1, H, W).
        label: (B, H, W), 1 for crack, 0 for background.
        ignore_index: Label of the pixels to leave out.
        smooth: Added to numerator and denominator, in pixels.
        per_image: Average the Dice of each image instead of pooling the
            pixels of the batch.

    Returns:
        A scalar; 0 if label and prediction are both empty, or if every
        pixel is ignored.
    """
    valid = label != ignore_index
    prob = logits.squeeze(1).float().sigmoid() * valid
    target = (label == 1).to(prob)
    dims = (1, 2) if per_image else (0, 1, 2)
    overlap = (prob * target).sum(dims)
    total = prob.sum(dims) + target.sum(dims)
    return (1 - (2 * overlap + smooth) / (total + smooth)).mean()


class _BinaryLoss(nn.Module):
    """What the losses of a one-channel head share: weight, name, call."""

    def __init__(self, loss_weight: float, loss_name: str) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self._loss_name = loss_name

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        ignore_index: int = 255,
    ) -> Tensor:
        """The weighted loss.

        Args:
            pred: Logits (B, 1, H, W).
            target: Labels (B, H, W).
            weight: Must be None: pixel samplers are not supported.
            ignore_index: Label of the pixels to leave out.

        Raises:
            ValueError: On other shapes, or with a pixel weight.
        """
        if weight is not None:
            raise ValueError(
                f'{type(self).__name__}: expected weight=None, got a tensor. '
                "Remove the decode head's sampler."
            )
        self._check(pred, target)
        return self.loss_weight * self._loss(pred, target, ignore_index)

    def _check(self, pred: Tensor, target: Tensor) -> None:
        check_binary_input(pred, target)

    @property
    def loss_name(self) -> str:
        """Name of the loss in the log."""
        return self._loss_name


@MODELS.register_module()
class CrackBCELoss(_BinaryLoss):
    """Binary cross-entropy on logits, see :func:`masked_bce`.

    Args:
        pos_weight: Weight of a crack pixel.
        loss_weight: Factor of the loss (CrackSSM: β = 3).
        loss_name: Name in the log; keep the prefix ``loss_``.
    """

    def __init__(
        self,
        pos_weight: float = 1.0,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_bce',
    ) -> None:
        super().__init__(loss_weight=loss_weight, loss_name=loss_name)
        self.pos_weight = pos_weight

    def _loss(self, pred: Tensor, target: Tensor, ignore_index: int) -> Tensor:
        return masked_bce(
            pred,
            target,
            ignore_index=ignore_index,
            pos_weight=self.pos_weight,
        )


@MODELS.register_module()
class CrackDiceLoss(_BinaryLoss):
    """Soft Dice loss on logits, see :func:`soft_dice_loss`.

    Unlike mmseg's ``DiceLoss`` it does not depend on ignored pixels.

    Args:
        smooth: Added to numerator and denominator, in pixels.
        per_image: Average per image instead of pooling the batch.
        loss_weight: Factor of the loss.
        loss_name: Name in the log; keep the prefix ``loss_``.
    """

    def __init__(
        self,
        smooth: float = 1.0,
        per_image: bool = False,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_dice',
    ) -> None:
        super().__init__(loss_weight=loss_weight, loss_name=loss_name)
        self.smooth = smooth
        self.per_image = per_image

    def _loss(self, pred: Tensor, target: Tensor, ignore_index: int) -> Tensor:
        return soft_dice_loss(
            pred,
            target,
            ignore_index=ignore_index,
            smooth=self.smooth,
            per_image=self.per_image,
        )


@MODELS.register_module()
class CrackCoarseBCELoss(_BinaryLoss):
    """Binary cross-entropy of a coarser map, see :func:`coarse_bce`.

    For side outputs (CrackMamba, eq. 14 and 16).

    Args:
        loss_weight: Factor of the loss (CrackMamba: α3 = 0.1).
        loss_name: Name in the log; keep the prefix ``loss_``.
    """

    def __init__(
        self, loss_weight: float = 0.1, loss_name: str = 'loss_bce'
    ) -> None:
        super().__init__(loss_weight=loss_weight, loss_name=loss_name)

    def _check(self, pred: Tensor, target: Tensor) -> None:
        """:func:`coarse_bce` checks the sizes."""

    def _loss(self, pred: Tensor, target: Tensor, ignore_index: int) -> Tensor:
        return coarse_bce(pred, target, ignore_index=ignore_index)
