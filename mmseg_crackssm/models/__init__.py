"""Models registered in ``mmseg.registry.MODELS``."""

from .backbones import CrackSSMBackbone, VSSBackbone
from .decode_heads import CrackPIDHead, CrackSSMHead, DirectionHead
from .layers import DPSM
from .losses import CrackBCELoss, CrackDiceLoss, CrackDirectionLoss
from .segmentors import ImageGuidedEncoderDecoder

__all__ = [
    'DPSM',
    'CrackBCELoss',
    'CrackDiceLoss',
    'CrackDirectionLoss',
    'CrackPIDHead',
    'CrackSSMBackbone',
    'CrackSSMHead',
    'DirectionHead',
    'ImageGuidedEncoderDecoder',
    'VSSBackbone',
]
