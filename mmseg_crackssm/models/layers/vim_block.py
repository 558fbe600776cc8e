"""Vision Mamba: the bidirectional Mamba layer."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from mmseg.registry import MODELS
from torch import Tensor

from .patch_layers import Linear2d
from .s6 import S6


class RMSNorm2d(nn.RMSNorm):
    """Root mean square normalisation over the channels of an NCHW map.

    Runs in the precision of its weights, as :class:`LayerNorm2d` does.

    Args:
        channels: Channels C.
        eps: Added to the mean square.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W) at each pixel."""
        x = x.permute(0, 2, 3, 1).to(self.weight.dtype)
        return super().forward(x).permute(0, 3, 1, 2)


class BidirectionalMamba(nn.Module):
    """Mamba over the pixels in row-major order, from both ends.

    One projection to x and z serves both directions; each has a causal
    convolution and an S6 of its own. Their sum is gated by SiLU(z) (Vim,
    Algorithm 1).

    Args:
        channels: Channels C of the input and output.
        d_state: State size N of S6.
        expand: Ratio of inner to outer channels.
        d_conv: Length of the causal convolution.
        backend: Backend of the selective scan.
        scan_dtype: Least precision of the recurrence.
    """

    def __init__(
        self,
        channels: int,
        d_state: int = 16,
        expand: float = 2.0,
        d_conv: int = 4,
        backend: str = 'auto',
        scan_dtype: str = 'float32',
    ) -> None:
        super().__init__()
        d_inner = int(expand * channels)
        self.in_proj = Linear2d(channels, 2 * d_inner, bias=False)
        # Those of both directions; the padding at the end is cut off.
        self.conv = nn.Conv1d(
            2 * d_inner,
            2 * d_inner,
            kernel_size=d_conv,
            padding=d_conv - 1,
            groups=2 * d_inner,
        )
        self.s6 = S6(
            d_inner,
            d_state=d_state,
            # From the outer channels, as in the published models.
            dt_rank=math.ceil(channels / 16),
            n_groups=2,
            backend=backend,
            scan_dtype=scan_dtype,
        )
        self.out_proj = Linear2d(d_inner, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the pixels of (B, C, H, W); the shape is kept."""
        size = x.shape[-2:]
        x, z = self.in_proj(x).chunk(2, dim=1)
        x = x.flatten(2)
        length = x.shape[-1]
        both = torch.cat((x, x.flip(-1)), dim=1)
        both = F.silu(self.conv(both)[..., :length])
        there, back = self.s6(both.unflatten(1, (2, -1))).unbind(1)
        y = (there + back.flip(-1)).unflatten(-1, size)
        return self.out_proj(y * F.silu(z))


@MODELS.register_module()
class VimBlock(nn.Module):
    """Layers x + BidirectionalMamba(RMSNorm(x)) in a row (Vim).

    He and Wang compare CrackMamba with two of them.

    Args:
        channels: Channels C.
        num_layers: Number of layers.
        d_state: State size N of S6.
        expand: Ratio of inner to outer channels.
        d_conv: Length of the causal convolution.
        drop_path: Probability of dropping a residual branch.
        backend: Backend of the selective scan.
        scan_dtype: Least precision of the recurrence.
    """

    def __init__(
        self,
        channels: int,
        num_layers: int = 2,
        d_state: int = 16,
        expand: float = 2.0,
        d_conv: int = 4,
        drop_path: float = 0.0,
        backend: str = 'auto',
        scan_dtype: str = 'float32',
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleList(
            RMSNorm2d(channels) for _ in range(num_layers)
        )
        self.mixers = nn.ModuleList(
            BidirectionalMamba(
                channels,
                d_state=d_state,
                expand=expand,
                d_conv=d_conv,
                backend=backend,
                scan_dtype=scan_dtype,
            )
            for _ in range(num_layers)
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, C, H, W); the shape is kept."""
        for norm, mixer in zip(self.norms, self.mixers, strict=True):
            x = x + self.drop_path(mixer(norm(x)))
        return x
