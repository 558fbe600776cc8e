"""Models registered in ``mmseg.registry.MODELS``."""

from .backbones import (
    CrackSeUBackbone,
    CrackSSMBackbone,
    DAMamba,
    VSSBackbone,
)
from .decode_heads import (
    CrackPIDHead,
    CrackSeUHead,
    CrackSeUSideHead,
    CrackSSMHead,
    DirectionHead,
)
from .layers import (
    DPSM,
    CrackMambaBlock,
    DAMambaBlock,
    VanillaVSSBlock,
    VimBlock,
    VSSBlock,
)
from .losses import (
    CrackBCELoss,
    CrackCoarseBCELoss,
    CrackDiceLoss,
    CrackDirectionLoss,
)
from .necks import BlockNeck, CrackSeUFusion
from .segmentors import ImageGuidedEncoderDecoder

__all__ = [
    'DPSM',
    'BlockNeck',
    'CrackBCELoss',
    'CrackCoarseBCELoss',
    'CrackDiceLoss',
    'CrackDirectionLoss',
    'CrackMambaBlock',
    'CrackPIDHead',
    'CrackSSMBackbone',
    'CrackSSMHead',
    'CrackSeUBackbone',
    'CrackSeUFusion',
    'CrackSeUHead',
    'CrackSeUSideHead',
    'DAMamba',
    'DAMambaBlock',
    'DirectionHead',
    'ImageGuidedEncoderDecoder',
    'VSSBackbone',
    'VSSBlock',
    'VanillaVSSBlock',
    'VimBlock',
]
