"""Multi-level fusion of CrackSeU."""

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor

from ..backbones.crackseu import HSWISH_CFG, NORM_CFG
from ..layers.conv_norm import ConvModule


class ChannelAttention(nn.Module):
    """Attention map of the channels, CBAM's with the average counted twice.

    sigmoid(2 MLP(avg(x)) + MLP(max(x))), as in CrackSeU's released code.

    Args:
        channels: Channels C.
        ratio: Ratio of C to the hidden channels.
    """

    def __init__(self, channels: int, ratio: int = 16) -> None:
        super().__init__()
        hidden = channels // ratio
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.max_pool = nn.AdaptiveMaxPool2d(1)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.act = nn.GELU(approximate='tanh')
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to weights (B, C, 1, 1) in (0, 1)."""
        average, largest = (
            self.fc2(self.act(self.fc1(pool(x))))
            for pool in (self.avg_pool, self.max_pool)
        )
        return (2 * average + largest).sigmoid()


class SpatialAttention(nn.Module):
    """Attention map of the pixels, CBAM's with the average given twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to weights (B, 1, H, W) in (0, 1)."""
        average = x.mean(dim=1, keepdim=True)
        largest = x.amax(dim=1, keepdim=True)
        return self.conv(torch.cat((average, largest, average), 1)).sigmoid()


class UpsampleConv(nn.Module):
    """Point-wise convolution, then bilinear upsampling.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        norm_cfg: Normalisation, as in mmcv.
    """

    def __init__(
        self, in_channels: int, out_channels: int, norm_cfg: dict
    ) -> None:
        super().__init__()
        self.conv = ConvModule(
            in_channels,
            out_channels,
            kernel_size=1,
            norm_cfg=norm_cfg,
            act_cfg=HSWISH_CFG,
        )

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Map (B, in_channels, h, w) to (B, out_channels, *size)."""
        return F.interpolate(
            self.conv(x), size=size, mode='bilinear', align_corners=True
        )


class FusionModule(nn.Module):
    """Feature fusion module of CrackSeU (CrackMamba, Fig. 4a).

    The middle half-width feature passes channel and spatial attention side
    by side; their results, put together, are added to the skip.

    Args:
        in_channels: Channels of the joined features.
        out_channels: Channels of the result.
        norm_cfg: Normalisation, as in mmcv.
    """

    def __init__(
        self, in_channels: int, out_channels: int, norm_cfg: dict
    ) -> None:
        super().__init__()

        def conv(out: int, *, depthwise: bool = False, width: int = 0):
            return ConvModule(
                width or in_channels,
                out,
                kernel_size=3 if depthwise else 1,
                padding=1 if depthwise else 0,
                groups=in_channels if depthwise else 1,
                norm_cfg=norm_cfg,
                act_cfg=None if depthwise else HSWISH_CFG,
            )

        half = in_channels // 2
        self.conv1 = conv(in_channels)
        self.conv2 = conv(in_channels, depthwise=True)
        self.conv3 = conv(half)
        self.channel_attention = ChannelAttention(half)
        self.spatial_attention = SpatialAttention()
        self.conv4 = conv(in_channels, depthwise=True)
        self.conv5 = conv(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        skip = self.conv1(x)
        x = self.conv3(self.conv2(skip))
        attended = (
            self.channel_attention(x) * x,
            self.spatial_attention(x) * x,
        )
        return self.conv5(self.conv4(torch.cat(attended, dim=1) + skip))


@MODELS.register_module()
class CrackSeUFusion(BaseModule):
    """Upsampling and fusion blocks of CrackSeU, without its outputs.

    Levels 5, 4 and 3 are fused at stride 8, 2 and 1 at stride 2, and these
    two at stride 2.

    Args:
        in_channels: Channels of the five levels, finest first.
        norm_cfg: Normalisation, as in mmcv; None for LN over the channels.
        init_cfg: mmengine initialisation.

    Raises:
        ValueError: Unless there are five levels.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (32, 64, 128, 256, 512),
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if len(in_channels) != 5:
            raise ValueError(
                'CrackSeUFusion: expected the channels of five levels, got '
                f'{tuple(in_channels)}'
            )
        norm_cfg = norm_cfg or NORM_CFG
        c1, c2, c3, c4, c5 = in_channels
        self.upsample5 = UpsampleConv(c5, c5 // 2, norm_cfg)
        self.upsample4 = UpsampleConv(c4, c4 // 2, norm_cfg)
        self.upsample3 = UpsampleConv(2 * c3, c3, norm_cfg)
        self.upsample2 = UpsampleConv(c2, c2 // 2, norm_cfg)
        self.fusion1 = FusionModule(c5 // 2 + c4 // 2 + c3, 2 * c3, norm_cfg)
        self.fusion2 = FusionModule(c2 // 2 + c1, 2 * c1, norm_cfg)
        self.fusion3 = FusionModule(c3 + 2 * c1, c1, norm_cfg)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Fuse the five levels.

        Args:
            inputs: Maps at strides 2, 4, 8, 16 and 32.

        Returns:
            At stride 2, the result (B, C1, H, W) for the head and the fused
            coarse levels (B, C3, H, W) for the side output.
        """
        x1, x2, x3, x4, x5 = inputs
        size1, size3 = x1.shape[-2:], x3.shape[-2:]
        coarse = self.fusion1(
            torch.cat(
                (self.upsample5(x5, size3), self.upsample4(x4, size3), x3), 1
            )
        )
        fine = self.fusion2(torch.cat((self.upsample2(x2, size1), x1), 1))
        coarse = self.upsample3(coarse, size1)
        return self.fusion3(torch.cat((coarse, fine), 1)), coarse
