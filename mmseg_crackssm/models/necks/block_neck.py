"""Mamba blocks behind any backbone."""

from collections.abc import Sequence

import torch.nn as nn
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class BlockNeck(BaseModule):
    """A shape-preserving block on each feature map.

    Args:
        in_channels: Channels of the maps.
        block: Config of the block; gets ``channels``.
        init_cfg: mmengine initialisation.

    Raises:
        ValueError: In the forward pass, if the number of maps is another.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        block: dict,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.blocks = nn.ModuleList(
            MODELS.build(dict(block, channels=c)) for c in in_channels
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Transform maps (B, C_i, H_i, W_i); the shapes are kept."""
        if len(inputs) != len(self.blocks):
            raise ValueError(
                f'BlockNeck: expected {len(self.blocks)} maps, as in_channels '
                f'has it, got {len(inputs)}'
            )
        return tuple(
            block(x) for block, x in zip(self.blocks, inputs, strict=True)
        )
