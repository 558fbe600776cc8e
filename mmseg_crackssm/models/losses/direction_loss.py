"""Direction-aware auxiliary supervision."""

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from ..layers.direction_map import DIRECTIONS, check_directions

# Each kernel differentiates across its direction, so that it answers to
# cracks that run along it.
DIRECTION_KERNELS = dict(
    horizontal=((-1, -2, -1), (0, 0, 0), (1, 2, 1)),
    vertical=((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)),
    diagonal=((0, 1, 2), (-1, 0, 1), (-2, -1, 0)),
    anti_diagonal=((-2, -1, 0), (-1, 0, 1), (0, 1, 2)),
)


def direction_target(
    crack: Tensor, directions: Sequence[str] = DIRECTIONS
) -> Tensor:
    """Target distribution G'_dir over the crack directions.

    The absolute responses of the label to one Sobel-like kernel per
    direction, softmax over the directions, zeros on the background
    (CrackSSM, Key Design 2). Deep inside a crack wider than the kernel all
    responses are 0 and the target is uniform.

    Args:
        crack: (B, H, W), 1 (or True) on crack pixels, 0 elsewhere.
        directions: Names out of ``DIRECTIONS``.

    Returns:
        (B, K, H, W) float32; sums to 1 over K on crack pixels, 0 elsewhere.
    """
    crack = crack.to(torch.float32).unsqueeze(1)
    kernels = torch.tensor(
        [DIRECTION_KERNELS[name] for name in directions],
        dtype=crack.dtype,
        device=crack.device,
    ).unsqueeze(1)
    # Replicated borders: a crack cut by the image's edge has no end there.
    padded = F.pad(crack, (1, 1, 1, 1), mode='replicate')
    # In half precision the shares would not sum to 1.
    with torch.autocast(crack.device.type, enabled=False):
        response = F.conv2d(padded, kernels).abs()
        return response.softmax(dim=1) * crack


def direction_loss(direction_map: Tensor, target: Tensor) -> Tensor:
    """Soft cross-entropy L_CE(G'_dir, F'_dir) over crack pixels.

    Args:
        direction_map: F_dir (B, K, H, W), logits.
        target: G'_dir (B, K, H, W), zero on the background.

    Returns:
        The mean over the crack pixels; 0 (with zero gradient) without any.
    """
    log_prob = direction_map.float().log_softmax(dim=1)
    # target sums to 1 on each crack pixel, so its sum counts them.
    return -(target * log_prob).sum() / target.sum().clamp(min=1)


@MODELS.register_module()
class CrackDirectionLoss(nn.Module):
    """L_dir of CrackSSM, see :func:`direction_target`.

    Args:
        directions: The crack directions of F_dir's channels.
        loss_weight: Factor of the loss (CrackSSM: α = 0.5).
        loss_name: Name in the log; keep the prefix ``loss_``.
    """

    def __init__(
        self,
        directions: Sequence[str] = DIRECTIONS,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_dir',
    ) -> None:
        super().__init__()
        self.directions = check_directions(directions)
        self.loss_weight = loss_weight
        self._loss_name = loss_name

    def forward(
        self, pred: Tensor, target: Tensor, ignore_index: int = 255
    ) -> Tensor:
        """The weighted loss.

        Args:
            pred: F_dir (B, K, H, W), logits, at the label's resolution.
            target: Labels (B, H, W).
            ignore_index: Label of the pixels to leave out; they count as
                background for the directions.

        Raises:
            ValueError: If F_dir has another number of channels or size.
        """
        expected = (target.shape[0], len(self.directions), *target.shape[1:])
        if tuple(pred.shape) != expected:
            raise ValueError(
                f'{type(self).__name__}: expected F_dir of shape {expected} '
                f'for directions {self.directions}, got {tuple(pred.shape)}. '
                'Give the backbone (or neck) and the loss the same directions.'
            )
        crack = (target == 1) & (target != ignore_index)
        return self.loss_weight * direction_loss(
            pred, direction_target(crack, directions=self.directions)
        )

    @property
    def loss_name(self) -> str:
        """Name of the loss in the log."""
        return self._loss_name
