"""Backbones by name, measured without a head."""

import importlib
from collections.abc import Iterable

from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor

# All give four maps, each behind a norm. Stochastic depth is off.
BACKBONES = {
    'damamba-t': dict(type='DAMamba', arch='tiny'),
    # The settings that mmseg has as defaults are those of Swin-T.
    'swin-t': dict(type='SwinTransformer', drop_path_rate=0.0),
    'convnext-t': dict(
        type='mmpretrain.ConvNeXt',
        arch='tiny',
        out_indices=(0, 1, 2, 3),
        gap_before_final_norm=False,
    ),
}
"""What the benchmark takes in the place of a config."""

MMPRETRAIN = 'mmpretrain'


class BareBackbone(BaseModel):
    """A backbone where a segmentor is expected.

    Args:
        backbone: Its config.

    Attributes:
        num_classes: For labels that nobody reads.
    """

    num_classes = 1

    def __init__(self, backbone: dict) -> None:
        super().__init__()
        self.backbone = MODELS.build(backbone)

    def forward(
        self, inputs: Tensor, data_samples: list | None = None, mode='tensor'
    ) -> tuple[Tensor, ...]:
        """The maps of images (B, 3, H, W)."""
        return self.backbone(inputs)

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """What gives each map a gradient: the means of absolute values.

        Those of the values themselves the last norms hold fixed.
        """
        return {'loss': sum(x.abs().mean() for x in self.backbone(inputs))}


def build_backbone(name: str) -> BareBackbone:
    """Build a backbone with random weights, in evaluation mode.

    Args:
        name: A key of :data:`BACKBONES`.
    """
    init_default_scope('mmseg')
    return BareBackbone(BACKBONES[name]).eval()


def find_missing(names: Iterable[str]) -> dict[str, str]:
    """Backbones whose package cannot be imported.

    Args:
        names: Keys of :data:`BACKBONES`; others are passed over.

    Returns:
        The reason and the remedy, by name.
    """
    wanted = [
        name
        for name in names
        if BACKBONES.get(name, {'type': ''})['type'].startswith(MMPRETRAIN)
    ]
    if not wanted:
        return {}
    try:
        importlib.import_module(f'{MMPRETRAIN}.models')
    except (ImportError, OSError, RuntimeError) as error:
        # torchvision, which it imports, may be that of another torch.
        reason = (
            f'mmpretrain cannot be imported ({error}). Install it and the '
            'torchvision of this torch: pip install onedl-mmpretrain '
            'torchvision (with the stack openmmlab: mmpretrain torchvision)'
        )
        return dict.fromkeys(wanted, reason)
    return {}
