"""SS2D: the two-dimensional selective scan of VMamba."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ...ops import gated_norm, scan_order
from .conv_norm import has_hooks, is_plain_conv
from .patch_layers import LayerNorm2d, Linear2d, split_outputs
from .s6 import S6

NUM_SCANS = 4
"""Row-major, column-major, and the reverse of each."""


def cross_scan(x: Tensor) -> Tensor:
    """Lay a map out along the four paths of VMamba's cross scan.

    Equal to gathering by ``scan_order('cross', H, W)``; transposing and
    flipping is faster than an index.

    Args:
        x: Map (B, C, H, W).

    Returns:
        (B, 4, C, H*W): row-major, column-major, reversed row-major,
        reversed column-major.
    """
    rows = x.flatten(2)
    columns = x.transpose(2, 3).flatten(2)
    forward = torch.stack((rows, columns), dim=1)
    return torch.cat((forward, forward.flip(-1)), dim=1)


def cross_merge(xs: Tensor, height: int, width: int) -> Tensor:
    """Put the four sequences of :func:`cross_scan` back and add them up.

    Args:
        xs: Sequences (B, 4, C, H*W).
        height: H.
        width: W.

    Returns:
        The sum (B, C, H, W).
    """
    forward = xs[:, :2] + xs[:, 2:].flip(-1)
    rows = forward[:, 0].unflatten(-1, (height, width))
    columns = forward[:, 1].unflatten(-1, (width, height))
    return rows + columns.transpose(2, 3)


def scan_cross(s6: S6, x: Tensor) -> Tensor:
    """Run S6 along the four paths of the cross scan and add up the results.

    Args:
        s6: The layer, with :data:`NUM_SCANS` sequences.
        x: Map (B, d, H, W).

    Returns:
        (B, d, H, W), in the dtype of ``x`` but at least float32.
    """
    height, width = x.shape[-2:]
    if s6.fuses(x):
        paths = scan_order('cross', height, width)
        return s6.along_paths(x, paths, merge=True)
    return cross_merge(s6(cross_scan(x)), height=height, width=width)


class SS2D(nn.Module):
    """Two-dimensional selective scan (VMamba, Section 4.2).

    Projection to d = expand * C channels, depth-wise convolution, SiLU, S6
    along four paths, sum, LayerNorm, and the projection back. The vanilla
    form multiplies the result by a gate SiLU(z) before the last step.

    Args:
        channels: Channels C of the input and output.
        d_state: State size N of S6.
        expand: Ratio of inner to outer channels.
        dt_rank: Rank of S6's step size; ``'auto'`` is ceil(C / 16).
        gate: Whether to have the gate branch z.
        conv_bias: Whether the depth-wise convolution has a bias.
        backend: Backend of the selective scan.
        scan_dtype: Least precision of the recurrence.
    """

    def __init__(
        self,
        channels: int,
        d_state: int = 16,
        expand: float = 2.0,
        dt_rank: int | str = 'auto',
        gate: bool = True,
        conv_bias: bool = True,
        backend: str = 'auto',
        scan_dtype: str = 'float32',
    ) -> None:
        super().__init__()
        d_inner = int(expand * channels)
        self.gate = gate
        self.in_proj = Linear2d(
            channels, 2 * d_inner if gate else d_inner, bias=False
        )
        self.conv = nn.Conv2d(
            d_inner,
            d_inner,
            kernel_size=3,
            padding=1,
            groups=d_inner,
            bias=conv_bias,
        )
        self.s6 = S6(
            d_inner,
            d_state=d_state,
            # From the outer channels, as in the published models.
            dt_rank=math.ceil(channels / 16) if dt_rank == 'auto' else dt_rank,
            n_groups=NUM_SCANS,
            backend=backend,
            scan_dtype=scan_dtype,
        )
        self.out_norm = LayerNorm2d(d_inner)
        self.out_proj = Linear2d(d_inner, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the pixels of (B, C, H, W); the shape is kept."""
        z = None
        if self.gate:
            x, z = split_outputs(self.in_proj, x, parts=2)
        else:
            x = self.in_proj(x)
        x = self.conv(x)
        # In place, a large map less is written.
        fresh = is_plain_conv(self.conv) and not x.requires_grad
        x = F.silu(x, inplace=fresh)
        scanned = scan_cross(self.s6, x)
        if z is None:
            x = self.out_norm(scanned)
        elif self.s6.runs_natively(x):
            x = _normalise_and_gate(scanned, z, self.out_norm)
        else:
            x = self.out_norm(scanned) * F.silu(z)
        return self.out_proj(x)


def _normalise_and_gate(x: Tensor, z: Tensor, norm: nn.Module) -> Tensor:
    """``norm(x) * SiLU(z)`` of maps (B, C, H, W), with the C kernel."""
    if type(norm) is not LayerNorm2d or has_hooks(norm):
        return norm(x) * F.silu(z)
    dtype = norm.weight.dtype
    x, z = (t.permute(0, 2, 3, 1).to(dtype) for t in (x, z))
    y = gated_norm(x, z, norm.weight, norm.bias, norm.eps)
    return y.permute(0, 3, 1, 2)
