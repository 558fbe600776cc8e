"""Crack-direction intensity maps."""

import torch
import torch.nn as nn
from torch import Tensor

from .conv_norm import ConvModule

DIRECTIONS = ('horizontal', 'vertical', 'diagonal', 'anti_diagonal')
"""The four crack directions, in the order of the channels of F_dir.

``diagonal`` runs from top left to bottom right, ``anti_diagonal`` from top
right to bottom left.
"""


def check_directions(directions: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``directions`` as a tuple, or say which names are valid.

    Raises:
        ValueError: On an empty, unknown or repeated direction.
    """
    directions = tuple(directions)
    if (
        not directions
        or len(set(directions)) != len(directions)
        or not set(directions) <= set(DIRECTIONS)
    ):
        raise ValueError(
            f'directions: expected one or more different names of '
            f'{DIRECTIONS}, got {directions}'
        )
    return directions


def coordinate_channels(x: Tensor) -> Tensor:
    """The two coordinate channels of a coordinate convolution.

    Args:
        x: A feature map (B, C, H, W).

    Returns:
        (B, 2, H, W): the x and y position of each pixel, from -1 at the
        first column (row) to 1 at the last; 0 along an axis of length 1.
    """
    height, width = x.shape[-2:]

    def axis(length: int) -> Tensor:
        if length == 1:
            return x.new_zeros(1)
        return torch.linspace(-1, 1, length, device=x.device, dtype=x.dtype)

    ys, xs = torch.meshgrid(axis(height), axis(width), indexing='ij')
    return torch.stack((xs, ys)).expand(x.shape[0], -1, -1, -1)


class DirectionMap(nn.Module):
    """Direction intensities F_dir from the deepest feature map.

    A coordinate convolution, then one channel per direction (CrackSSM,
    direction-aware auxiliary supervision). The values are logits: softmax
    over the channels gives the distribution that
    :class:`~mmseg_crackssm.models.DirectionHead` supervises.

    Args:
        in_channels: Channels of F4.
        channels: Channels between the two convolutions.
        num_directions: Number of directions.
        norm_cfg: Normalisation after the coordinate convolution.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_directions: int = len(DIRECTIONS),
        norm_cfg: dict | None = None,
    ) -> None:
        super().__init__()
        self.coord_conv = ConvModule(
            in_channels + 2,
            channels,
            kernel_size=3,
            padding=1,
            norm_cfg=norm_cfg,
        )
        self.project = nn.Conv2d(channels, num_directions, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map F4 (B, C, h, w) to F_dir (B, num_directions, h, w)."""
        x = torch.cat((x, coordinate_channels(x)), dim=1)
        return self.project(self.coord_conv(x))
