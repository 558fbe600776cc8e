"""Direction-aware auxiliary supervision."""

from collections.abc import Sequence

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.utils import SampleList
from torch import Tensor

from ..layers.direction_map import DIRECTIONS, check_directions


@MODELS.register_module()
class DirectionHead(BaseDecodeHead):
    """Supervises the direction intensities F_dir. It has no layers.

    The target is derived from the label (see
    :func:`~mmseg_crackssm.models.losses.direction_target`), so the dataset
    needs no direction labels.

    Args:
        directions: The crack directions of F_dir's channels: the names given
            to DPSM, in its order. The head sees their number alone, so that
            others would be learnt without a word.
        in_index: Index of F_dir among the features of the backbone or neck.
        loss_decode: The loss; ``CrackDirectionLoss`` of weight 0.5 by
            default.
        ignore_index: Label of the pixels to leave out.
        align_corners: Of the resize of F_dir to the label.

    Raises:
        ValueError: On an unknown direction, or a loss for other directions.
    """

    def __init__(
        self,
        directions: Sequence[str] = DIRECTIONS,
        in_index: int = 4,
        loss_decode: dict | None = None,
        ignore_index: int = 255,
        align_corners: bool = False,
    ) -> None:
        directions = check_directions(directions)
        super().__init__(
            in_channels=len(directions),
            channels=len(directions),
            num_classes=len(directions),
            out_channels=len(directions),
            dropout_ratio=0,
            in_index=in_index,
            loss_decode=loss_decode
            or dict(
                type='CrackDirectionLoss',
                directions=directions,
                loss_weight=0.5,
            ),
            ignore_index=ignore_index,
            align_corners=align_corners,
            init_cfg=None,
        )
        del self.conv_seg
        meant = getattr(self.loss_decode, 'directions', directions)
        if meant != directions:
            raise ValueError(
                f'DirectionHead: expected a loss for directions {directions}, '
                f'got one for {meant}. Give both the same.'
            )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return F_dir (B, K, h, w) out of the features.

        Raises:
            ValueError: If the feature at ``in_index`` has not K channels.
        """
        direction_map = self._transform_inputs(inputs)
        if direction_map.shape[1] != self.in_channels:
            raise ValueError(
                f'DirectionHead: expected F_dir with {self.in_channels} '
                f'channels as feature {self.in_index}, got shape '
                f'{tuple(direction_map.shape)}. DPSM puts F_dir after its '
                'four levels (in_index=4).'
            )
        return direction_map

    def loss_by_feat(
        self, seg_logits: Tensor, batch_data_samples: SampleList
    ) -> dict:
        """The direction loss at the resolution of the label.

        Args:
            seg_logits: F_dir (B, K, h, w).
            batch_data_samples: With ``gt_sem_seg`` (1, H, W) each.

        Returns:
            A dict with the loss under its name.
        """
        label = self._stack_batch_gt(batch_data_samples)
        direction_map = resize(
            seg_logits,
            size=label.shape[2:],
            mode='bilinear',
            align_corners=self.align_corners,
        )
        loss = self.loss_decode(
            direction_map, label.squeeze(1), ignore_index=self.ignore_index
        )
        return {self.loss_decode.loss_name: loss}
