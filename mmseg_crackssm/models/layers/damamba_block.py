"""The block of DAMamba."""

import math
from collections import OrderedDict

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks import DropPath, LayerScale
from mmseg.registry import MODELS
from torch import Tensor

from .das import DynamicAdaptiveScan
from .patch_layers import LayerNorm2d
from .s6 import S6


class ResidualDepthwiseConv(nn.Conv2d):
    """x + DW(x), as one depth-wise 3x3 convolution.

    The released models store the identity that is added to the kernel, as a
    parameter that is not trained and counts as the paper's do.

    Args:
        channels: Channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(
            channels, channels, kernel_size=3, padding=1, groups=channels
        )
        identity = torch.zeros(1, 1, 3, 3)
        identity[..., 1, 1] = 1
        self.identity = nn.Parameter(identity, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, C, H, W); the shape is kept."""
        return self._conv_forward(x, self.weight + self.identity, self.bias)


class DynamicAdaptiveSSM(nn.Module):
    """DASSM, the token mixer of DAMamba (arXiv:2502.12627, Fig. 4).

    Projection, depth-wise convolution, SiLU; the result sampled at offsets
    that are predicted from the layer's input; S6 with one state per channel
    along the rows of what was sampled; LayerNorm, and the projection back.

    Args:
        channels: Channels C.
        head_dim: Channels that are sampled at the same place.
        backend: Backend of the selective scan.
        scan_dtype: Least precision of the recurrence.
    """

    def __init__(
        self,
        channels: int,
        head_dim: int = 16,
        backend: str = 'auto',
        scan_dtype: str = 'float32',
    ) -> None:
        super().__init__()
        self.in_proj = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv = nn.Conv2d(
            channels, channels, kernel_size=3, padding=1, groups=channels
        )
        self.das = DynamicAdaptiveScan(channels, head_dim=head_dim)
        self.s6 = S6(
            channels,
            d_state=1,
            n_groups=1,
            backend=backend,
            scan_dtype=scan_dtype,
        )
        self.out_norm = LayerNorm2d(channels, eps=1e-6)
        self.out_proj = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the pixels of (B, C, H, W); the shape is kept."""
        values = F.silu(self.conv(self.in_proj(x)))
        sampled = self.das(values, query=x)
        scanned = self.s6(sampled.flatten(2)[:, None])[:, 0]
        return self.out_proj(self.out_norm(scanned.view_as(sampled)))


@MODELS.register_module()
class DAMambaBlock(nn.Module):
    """x <- x + DW(x), then x + DASSM(LN(x)), then x + ConvFFN(BN(x)).

    ConvFFN is a point-wise convolution to mlp_ratio * C channels, GELU,
    x + DW(x), and the point-wise convolution back (DAMamba,
    arXiv:2502.12627, Fig. 4).

    Args:
        channels: Channels C.
        head_dim: Channels that DAS samples at the same place; divides C.
        mlp_ratio: Ratio of the hidden channels of the ConvFFN to C.
        norm_cfg: Normalisation before the ConvFFN, as in mmcv; None for BN.
        layer_scale: Initial value of the factors, one per channel, of both
            branches; None for no such factors.
        drop_path: Probability of dropping a residual branch.
        backend: Backend of the selective scan.
        scan_dtype: Least precision of the recurrence.

    Raises:
        ValueError: If ``head_dim`` does not divide the channels.
    """

    def __init__(
        self,
        channels: int,
        head_dim: int = 16,
        mlp_ratio: float = 4.0,
        norm_cfg: dict | None = None,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        backend: str = 'auto',
        scan_dtype: str = 'float32',
    ) -> None:
        super().__init__()
        hidden = int(mlp_ratio * channels)
        self.pos_embed = ResidualDepthwiseConv(channels)
        self.norm1 = LayerNorm2d(channels, eps=1e-6)
        self.mixer = DynamicAdaptiveSSM(
            channels,
            head_dim=head_dim,
            backend=backend,
            scan_dtype=scan_dtype,
        )
        self.norm2 = build_norm_layer(norm_cfg or dict(type='BN'), channels)[1]
        self.ffn = nn.Sequential(
            OrderedDict(
                fc1=nn.Conv2d(channels, hidden, 1),
                act=nn.GELU(),
                conv=ResidualDepthwiseConv(hidden),
                fc2=nn.Conv2d(hidden, channels, 1),
            )
        )
        self.scale1, self.scale2 = (
            nn.Identity()
            if layer_scale is None
            else LayerScale(
                channels, data_format='channels_first', scale=layer_scale
            )
            for _ in range(2)
        )
        self.drop_path = DropPath(drop_path)
        init_convs(self)

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, C, H, W); the shape is kept."""
        x = self.pos_embed(x)
        x = x + self.drop_path(self.scale1(self.mixer(self.norm1(x))))
        return x + self.drop_path(self.scale2(self.ffn(self.norm2(x))))


@torch.no_grad()
def init_convs(module: nn.Module) -> None:
    """Initialise all convolutions as DAMamba's code does.

    Normal weights of variance 2 / fan-out, zero biases; the fan-out of a
    depth-wise convolution is its kernel's, which ``kaiming_normal_`` does not
    know.

    Args:
        module: The module that they are in.
    """
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            area = math.prod(conv.kernel_size)
            fan_out = area * conv.out_channels // conv.groups
            nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
