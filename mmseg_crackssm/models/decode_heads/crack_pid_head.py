"""PIDNet's head with one crack logit."""

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads import PIDHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.utils import SampleList
from torch import Tensor

from ..losses.binary_loss import crack_accuracy


def label_edges(label: Tensor, ignore_index: int, width: int = 3) -> Tensor:
    """Pixels at the border of two classes.

    Args:
        label: (B, H, W).
        ignore_index: Label whose borders are none.
        width: Width of the lines, odd, in pixels.

    Returns:
        (B, H, W), 1 on a border, else 0, of the label's type.
    """
    valid = label != ignore_index
    edges = torch.zeros_like(label, dtype=torch.float32)
    for axis in (1, 2):
        size = label.shape[axis]
        first, second = (
            label.narrow(axis, start, size - 1) for start in (0, 1)
        )
        both = valid.narrow(axis, 0, size - 1) & valid.narrow(
            axis, 1, size - 1
        )
        edges.narrow(axis, 1, size - 1)[(first != second) & both] = 1
    wide = F.max_pool2d(edges[:, None], width, stride=1, padding=width // 2)
    return wide.squeeze(1).to(label.dtype)


@MODELS.register_module()
class CrackPIDHead(PIDHead):
    """mmseg's ``PIDHead`` for one logit and for data sets without edge maps.

    Xu et al., "PIDNet", CVPR 2023. Its three branches keep their roles: the
    detail branch (P) and the whole (I) learn the label, I a second time where
    the boundary branch (D) is sure of a border, and D the borders of the
    label. The segmentation losses are CrackSSM's in the place of
    cross-entropies, whose sampling of hard pixels is made for many classes;
    the borders are taken from the label, not from the data set.

    Args:
        loss_decode: Segmentation losses, used for all three.
        loss_boundary: Loss of the boundary branch.
        detail_weight: Weight of the detail branch's losses.
        **kwargs: As in ``PIDHead``.
    """

    #: Probability from which the boundary branch is sure.
    SURE = 0.8

    def __init__(
        self,
        *args,
        loss_boundary: dict | None = None,
        detail_weight: float = 0.4,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.loss_boundary = MODELS.build(
            loss_boundary or dict(type='BoundaryLoss', loss_weight=20.0)
        )
        self.detail_weight = detail_weight

    def loss_by_feat(
        self, seg_logits: tuple[Tensor, ...], batch_data_samples: SampleList
    ) -> dict:
        """The losses of the three branches.

        Args:
            seg_logits: Logits of P, I and D, (B, 1, h, w) each.
            batch_data_samples: With ``gt_sem_seg`` (1, H, W) each.

        Returns:
            A dict of losses by name, and ``acc_seg``.
        """
        label = BaseDecodeHead._stack_batch_gt(self, batch_data_samples)
        label = label.squeeze(1)
        detail, whole, boundary = (
            resize(
                logits,
                size=label.shape[1:],
                mode='bilinear',
                align_corners=self.align_corners,
            )
            for logits in seg_logits
        )
        at_borders = torch.where(
            boundary.squeeze(1).sigmoid() > self.SURE,
            label,
            torch.full_like(label, self.ignore_index),
        )
        edges = label_edges(label, ignore_index=self.ignore_index)
        losses = {'loss_boundary': self.loss_boundary(boundary, edges)}
        for name, logits, target, weight in (
            ('detail', detail, label, self.detail_weight),
            ('whole', whole, label, 1.0),
            ('border', whole, at_borders, 1.0),
        ):
            for function in self.loss_decode:
                losses[f'{function.loss_name}_{name}'] = weight * function(
                    logits, target, ignore_index=self.ignore_index
                )
        losses['acc_seg'] = crack_accuracy(
            whole, label, self.ignore_index, threshold=self.threshold
        )
        return losses
