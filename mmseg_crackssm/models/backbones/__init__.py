"""Backbones registered in ``mmseg.registry.MODELS``."""

from .crackseu import CrackSeUBackbone
from .crackssm import CrackSSMBackbone
from .damamba import DAMamba
from .vss import ARCHITECTURES, VSSBackbone

__all__ = [
    'ARCHITECTURES',
    'CrackSSMBackbone',
    'CrackSeUBackbone',
    'DAMamba',
    'VSSBackbone',
]
