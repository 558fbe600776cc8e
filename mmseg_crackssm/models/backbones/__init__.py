"""Backbones registered in ``mmseg.registry.MODELS``."""

from .crackssm import CrackSSMBackbone
from .vss import ARCHITECTURES, VSSBackbone

__all__ = ['ARCHITECTURES', 'CrackSSMBackbone', 'VSSBackbone']
