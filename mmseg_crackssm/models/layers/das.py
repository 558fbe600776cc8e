"""Dynamic adaptive scan: the tokens of a scan are sampled where it pays."""

import math

import torch
import torch.nn as nn
from torch import Tensor

from ...ops import adaptive_sample
from .patch_layers import LayerNorm2d, Linear2d


class DynamicAdaptiveScan(nn.Module):
    """Dynamic Adaptive Scan (DAMamba, arXiv:2502.12627, Fig. 3).

    An offset prediction network (depth-wise 3x3 convolution, LayerNorm, GELU,
    linear map) looks at a query map and tells, for each pixel and group of
    channels, how far from it to read the value map. What is scanned
    afterwards, row after row, are the values found there.

    Offsets that are NaN or infinite raise: on the CPU always; on CUDA, where
    the check would wait for the device, only under
    ``torch.autograd.set_detect_anomaly(True)``; never in a traced model.

    Args:
        channels: Channels C of the maps.
        head_dim: Channels that are read at the same place; C / head_dim
            groups.

    Attributes:
        layer_name: What error messages call the layer, see
            :func:`name_scans`.

    Raises:
        ValueError: If ``head_dim`` does not divide the channels.
    """

    def __init__(self, channels: int, head_dim: int = 16) -> None:
        super().__init__()
        if head_dim < 1 or channels % head_dim:
            raise ValueError(
                'DynamicAdaptiveScan: expected channels that are a multiple '
                f'of head_dim, got {channels} channels and head_dim '
                f'{head_dim}. Take a divisor of the channels as head_dim'
            )
        self.layer_name = ''
        self.conv = nn.Conv2d(
            channels, channels, kernel_size=3, padding=1, groups=channels
        )
        self.norm = LayerNorm2d(channels, eps=1e-6)
        self.act = nn.GELU()
        self.offset = Linear2d(channels, 2 * (channels // head_dim))

    def offsets(self, query: Tensor) -> Tensor:
        """Where each pixel and group looks.

        Args:
            query: Map (B, C, H, W).

        Returns:
            (B, 2 * G, H, W) in pixels: dx and dy of the first group, ...

        Raises:
            ValueError: If one is NaN or infinite, see above.
        """
        offset = self.offset(self.act(self.norm(self.conv(query))))
        self._check(offset)
        return offset

    def forward(self, x: Tensor, query: Tensor) -> Tensor:
        """Sample a map.

        Args:
            x: Values (B, C, H, W).
            query: What the offsets are predicted from, (B, C, H, W).

        Returns:
            (B, C, H, W), in the dtype of ``x`` but at least float32.
        """
        return adaptive_sample(x, self.offsets(query))

    def _check(self, offset: Tensor) -> None:
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return
        if offset.device.type != 'cpu' and not torch.is_anomaly_enabled():
            return
        # The sum of finite numbers can overflow, so it only acquits.
        if math.isfinite(offset.detach().sum()):
            return
        wrong = int((~offset.isfinite()).sum())
        if wrong:
            where = f' {self.layer_name!r}' if self.layer_name else ''
            raise ValueError(
                f'DynamicAdaptiveScan{where}: {wrong} of {offset.numel()} '
                'offsets are NaN or infinite. Look for NaN in the image and '
                "the weights; where they come up in training, lower 'lr' or "
                'clip the gradients'
            )


def name_scans(module: nn.Module) -> None:
    """Name the dynamic adaptive scans in a module by their paths in it.

    Args:
        module: A backbone or a neck; layers keep the name that was given
            last.
    """
    for name, child in module.named_modules():
        if isinstance(child, DynamicAdaptiveScan):
            child.layer_name = name
