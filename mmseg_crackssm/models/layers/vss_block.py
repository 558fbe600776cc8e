"""The visual state-space block of VMamba."""

from collections import OrderedDict
from typing import Any

import torch.nn as nn
from mmcv.cnn.bricks import DropPath
from mmseg.registry import MODELS
from torch import Tensor

from .patch_layers import LayerNorm2d, Linear2d
from .ss2d import SS2D

BLOCK_STYLES = dict(
    vanilla=dict(gate=True, mlp_ratio=0.0),
    v05_noz=dict(gate=False, mlp_ratio=4.0),
)
"""The first published block ('vanilla', a gate and no MLP) and that of the
later released models ('v05_noz', an MLP and no gate)."""


@MODELS.register_module()
class VSSBlock(nn.Module):
    """x + SS2D(LN(x)), and in style 'v05_noz' then x + MLP(LN(x)).

    Args:
        channels: Channels C.
        style: A key of :data:`BLOCK_STYLES`.
        d_state: State size N of S6.
        expand: Ratio of SS2D's inner to outer channels.
        conv_bias: Whether the depth-wise convolution has a bias; the
            released models of style 'v05_noz' have none.
        drop_path: Probability of dropping a residual branch.
        backend: Backend of the selective scan.
        scan_dtype: Least precision of the recurrence.

    Raises:
        ValueError: On an unknown style.
    """

    def __init__(
        self,
        channels: int,
        style: str = 'v05_noz',
        d_state: int = 16,
        expand: float = 2.0,
        conv_bias: bool = True,
        drop_path: float = 0.0,
        backend: str = 'auto',
        scan_dtype: str = 'float32',
    ) -> None:
        super().__init__()
        if style not in BLOCK_STYLES:
            raise ValueError(
                f'VSSBlock style: expected one of {tuple(BLOCK_STYLES)}, '
                f'got {style!r}'
            )
        options = BLOCK_STYLES[style]
        self.norm = LayerNorm2d(channels)
        self.ss2d = SS2D(
            channels,
            d_state=d_state,
            expand=expand,
            gate=options['gate'],
            conv_bias=conv_bias,
            backend=backend,
            scan_dtype=scan_dtype,
        )
        self.drop_path = DropPath(drop_path)
        self.mlp = None
        if options['mlp_ratio']:
            hidden = int(options['mlp_ratio'] * channels)
            self.norm2 = LayerNorm2d(channels)
            self.mlp = nn.Sequential(
                OrderedDict(
                    fc1=Linear2d(channels, hidden),
                    act=nn.GELU(),
                    fc2=Linear2d(hidden, channels),
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, C, H, W); the shape is kept."""
        x = x + self.drop_path(self.ss2d(self.norm(x)))
        if self.mlp is not None:
            x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x


@MODELS.register_module()
class VanillaVSSBlock(VSSBlock):
    """:class:`VSSBlock` in style 'vanilla'.

    Args:
        channels: Channels C.
        **options: Further arguments of :class:`VSSBlock`.
    """

    def __init__(self, channels: int, **options: Any) -> None:
        super().__init__(channels, style='vanilla', **options)
