"""Gates from the image's high-frequency wavelet bands."""

import torch.nn as nn
from mmcv.cnn import build_norm_layer
from mmseg.models.utils import resize
from torch import Tensor

from .conv_norm import conv_norm

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
            nn.Conv2d(NUM_BANDS * image_channels, hidden, 1, groups=NUM_BANDS),
            build_norm_layer(norm_cfg or dict(type='BN'), hidden)[1],
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, NUM_BANDS, 1, groups=NUM_BANDS),
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
        conv, norm, *layers = self.gates
        gate = conv_norm(bands, conv, norm)
        for layer in layers:
            gate = layer(gate)
        gate = gate.mean(dim=1, keepdim=True)
        gate = resize(
            gate, size=x.shape[-2:], mode='bilinear', align_corners=False
        )
        return x * (1 + gate)
