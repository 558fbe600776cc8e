"""What heads with one logit per pixel share."""

from typing import Any

import torch
import torch.nn as nn
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.utils import SampleList
from torch import Tensor

from ..losses.binary_loss import crack_accuracy


class OneLogitHead(BaseDecodeHead):
    """A head whose logits (B, 1, H, W) have the image's size.

    They may be larger by what the image lacks to a multiple of the stride;
    that is cut off, where mmseg would squeeze it in.

    Args:
        num_classes, out_channels, threshold: One logit, sigmoid, threshold.
        dropout_ratio: As in mmseg's ``BaseDecodeHead``, but none by default.
        init_cfg: mmengine initialisation; None keeps PyTorch's.
        **options: Further arguments of ``BaseDecodeHead``.
    """

    def __init__(
        self,
        num_classes: int = 2,
        out_channels: int = 1,
        threshold: float = 0.5,
        dropout_ratio: float = 0.0,
        init_cfg: dict | list[dict] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            out_channels=out_channels,
            threshold=threshold,
            dropout_ratio=dropout_ratio,
            init_cfg=init_cfg,
            **options,
        )

    def loss_by_feat(
        self, seg_logits: Tensor, batch_data_samples: SampleList
    ) -> dict:
        """The segmentation losses, and the pixel accuracy in percent.

        Args:
            seg_logits: Logits (B, 1, H, W).
            batch_data_samples: With ``gt_sem_seg`` (1, H, W) each.

        Returns:
            A dict of the losses by name, and ``acc_seg``.
        """
        # Not mmseg's: its accuracy takes the argmax over channels, of which
        # there is one, and it resizes logits that have the label's size.
        label = self._stack_batch_gt(batch_data_samples).squeeze(1)
        seg_logits = seg_logits[..., : label.shape[-2], : label.shape[-1]]
        losses = self._losses(seg_logits, label)
        losses['acc_seg'] = crack_accuracy(
            seg_logits, label, self.ignore_index, threshold=self.threshold
        )
        return losses

    def predict_by_feat(
        self, seg_logits: Tensor, batch_img_metas: list[dict]
    ) -> Tensor:
        """Logits of the image's size.

        Args:
            seg_logits: Logits (B, 1, H, W), perhaps larger than the image.
            batch_img_metas: As of mmseg.
        """
        meta = batch_img_metas[0]
        size = meta['img_shape']
        # mmseg's rule: a torch.Size is the window of a sliding inference.
        if not isinstance(size, torch.Size):
            size = meta.get('pad_shape', size)
        seg_logits = seg_logits[..., : size[0], : size[1]]
        return super().predict_by_feat(seg_logits, batch_img_metas)

    def _losses(self, seg_logits: Tensor, label: Tensor) -> dict:
        functions = self.loss_decode
        if not isinstance(functions, nn.ModuleList):
            functions = [functions]
        losses: dict[str, Tensor] = {}
        for function in functions:
            name = function.loss_name
            loss = function(seg_logits, label, ignore_index=self.ignore_index)
            losses[name] = losses[name] + loss if name in losses else loss
        return losses
