"""Gates from the image's high-frequency wavelet bands."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmseg.models.utils import resize
from torch import Tensor

from ...ops import mean_gate, serves
from .conv_norm import fold_norm, has_hooks
from .pointwise import PointwiseConv2d

NUM_BANDS = 3


class WaveletGate(nn.Module):
    """Wavelet gating module (WGM).

    One spatial gate per high-frequency band of the image,
    W_* = σ(Conv1×1(ReLU(BN(Conv1×1(Î_*))))) with * in LH, HL, HH, resized
    to the decoder feature and multiplied onto it (CrackSSM, Key Design 3).
    The gated features are averaged and added to the feature, so that a gate
    amplifies edges and never erases what the decoder found elsewhere.

    Args:
        image_channels: Channels of the image.
        channels: Channels between the two convolutions, per band.
        norm_cfg: The normalisation between them.
    """

    def __init__(
        self,
        image_channels: int = 3,
        channels: int = 8,
        norm_cfg: dict | None = None,
    ) -> None:
        super().__init__()
        hidden = NUM_BANDS * channels
        # Grouped: each band has convolutions of its own, in one call.
        self.gates = nn.Sequential(
            PointwiseConv2d(
                NUM_BANDS * image_channels, hidden, groups=NUM_BANDS
            ),
            build_norm_layer(norm_cfg or dict(type='BN'), hidden)[1],
            nn.ReLU(inplace=True),
            PointwiseConv2d(hidden, NUM_BANDS, groups=NUM_BANDS),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor, bands: Tensor) -> Tensor:
        """Gate a decoder feature.

        Args:
            x: Decoder feature (B, C, H, W).
            bands: The image's LH, HL and HH bands, concatenated along the
                channels: (B, 3 * image_channels, h, w).

        Returns:
            The gated feature (B, C, H, W).
        """
        return x * (1 + self.opening(bands, size=x.shape[-2:]))

    def opening(self, bands: Tensor, size: tuple[int, int]) -> Tensor:
        """The mean gate, which lies between 0 and 1.

        Args:
            bands: As in :meth:`forward`.
            size: (H, W).

        Returns:
            (B, 1, H, W).
        """
        gate = self._open(bands, size)
        if gate.shape[-2:] != size:
            gate = resize(
                gate, size=size, mode='bilinear', align_corners=False
            )
        return gate

    def _open(self, bands: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, 1, h', w') that, resized, is the mean gate of this size."""
        conv, norm, _, out_conv, _ = self.gates
        folded = fold_norm(bands, conv, norm) if self._is_plain() else None
        # Other layers look at the whole map, and so may hooks.
        if folded is None:
            return self.gates(bands).mean(dim=1, keepdim=True)
        bands = pixels_read(bands, size)
        weights = (*folded, out_conv.weight, out_conv.bias)
        if serves(bands, *weights):
            shape = (NUM_BANDS, -1)
            weight, bias, out_weight, out_bias = weights
            return mean_gate(
                bands,
                weight.view(*shape, weight.shape[1]),
                bias.view(shape),
                out_weight.view(shape),
                out_bias,
            )
        gate = conv._conv_forward(bands, *folded)
        # In place on a view, a gradient would cost a zeroed map and copies.
        gate = F.relu(gate, inplace=not gate.requires_grad)
        return torch.sigmoid(out_conv(gate)).mean(dim=1, keepdim=True)

    def _is_plain(self) -> bool:
        """Whether the layers are those made here, and nobody watches them."""
        types = (PointwiseConv2d, nn.ReLU, PointwiseConv2d, nn.Sigmoid)
        conv, _, *layers = self.gates
        out_conv = self.gates[3]
        return (
            tuple(map(type, (conv, *layers))) == types
            and conv.groups == out_conv.groups == NUM_BANDS
            and out_conv.out_channels == NUM_BANDS
            and out_conv.bias is not None
            and not any(map(has_hooks, self.gates.modules()))
        )


def pixels_read(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Leave out pixels that bilinear resizing to ``size`` does not read.

    It reads four pixels per target pixel. To an even part of the size they
    are the middle ones of each block, and resizing what is left gives the
    same.

    Args:
        x: Map (B, C, h, w).
        size: (H, W).

    Returns:
        (B, C, 2 * H, 2 * W) if h / H = w / W is even, else ``x``.
    """
    height, width = size
    scale = x.shape[-1] // width
    divides = x.shape[-2:] == (scale * height, scale * width)
    if scale < 4 or scale % 2 or not divides:
        return x
    middle = slice(scale // 2 - 1, scale // 2 + 1)
    blocks = x.unflatten(-1, (width, scale)).unflatten(-3, (height, scale))
    return blocks[..., middle, :, middle].flatten(-2).flatten(-3, -2)
