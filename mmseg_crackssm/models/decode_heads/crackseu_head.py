"""Output and side output of CrackSeU."""

from typing import Any

import torch.nn as nn
from mmseg.registry import MODELS
from mmseg.utils import SampleList
from torch import Tensor

from ..backbones.crackseu import NORM_CFG
from ..layers.conv_norm import ConvModule
from .one_logit_head import OneLogitHead


@MODELS.register_module()
class CrackSeUHead(OneLogitHead):
    """Output block of CrackSeU: a transposed convolution, and a logit.

    Args:
        in_channels: Channels of the map at stride 2.
        channels: Channels behind the transposed convolution.
        in_index: Index of the map.
        loss_decode: Losses; None for BCE + Dice per image with ε = 1e-4
            (CrackMamba, eq. 14 to 17).
        **options: Further arguments of :class:`OneLogitHead`.
    """

    def __init__(
        self,
        in_channels: int = 32,
        channels: int = 32,
        in_index: int = 0,
        loss_decode: dict | list[dict] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            channels=channels,
            in_index=in_index,
            loss_decode=loss_decode
            or [
                dict(type='CrackBCELoss', loss_weight=1.0),
                dict(
                    type='CrackDiceLoss',
                    smooth=1e-4,
                    per_image=True,
                    loss_weight=1.0,
                ),
            ],
            **options,
        )
        self.upsample = nn.ConvTranspose2d(
            in_channels, channels, kernel_size=2, stride=2
        )

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Logits (B, 1, 2h, 2w) of the map (B, in_channels, h, w)."""
        x = self._transform_inputs(inputs)
        return self.cls_seg(self.upsample(x))


@MODELS.register_module()
class CrackSeUSideHead(OneLogitHead):
    """Side output block of CrackSeU, an auxiliary head at stride 2.

    Its target is the share of crack in each 2 x 2 square of the label
    (CrackMamba, eq. 16, which has it in [0, 1]).

    Args:
        in_channels: Channels of the map.
        channels: Channels between the two convolutions.
        in_index: Index of the map.
        norm_cfg: Normalisation, as in mmcv; None for LN over the channels.
        loss_decode: The loss; None for ``CrackCoarseBCELoss`` of weight 0.1.
        **options: Further arguments of :class:`OneLogitHead`.
    """

    def __init__(
        self,
        in_channels: int = 128,
        channels: int = 64,
        in_index: int = 1,
        norm_cfg: dict | None = None,
        loss_decode: dict | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            channels=channels,
            in_index=in_index,
            norm_cfg=norm_cfg or NORM_CFG,
            loss_decode=loss_decode or dict(type='CrackCoarseBCELoss'),
            **options,
        )
        self.conv = ConvModule(
            in_channels,
            channels,
            kernel_size=3,
            padding=1,
            bias=True,
            norm_cfg=self.norm_cfg,
            act_cfg=None,
        )
        self.conv_seg = nn.Conv2d(
            channels, self.out_channels, kernel_size=3, padding=1
        )

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Logits (B, 1, h, w) of the map (B, in_channels, h, w)."""
        return self.cls_seg(self.conv(self._transform_inputs(inputs)))

    def loss_by_feat(
        self, seg_logits: Tensor, batch_data_samples: SampleList
    ) -> dict:
        """The side loss.

        Args:
            seg_logits: Logits (B, 1, ⌈H/2⌉, ⌈W/2⌉).
            batch_data_samples: With ``gt_sem_seg`` (1, H, W) each.

        Returns:
            A dict of the losses by name.
        """
        label = self._stack_batch_gt(batch_data_samples).squeeze(1)
        return self._losses(seg_logits, label)
