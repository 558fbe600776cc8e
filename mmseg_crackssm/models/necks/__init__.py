"""Necks registered in ``mmseg.registry.MODELS``."""

from .block_neck import BlockNeck
from .crackseu_fusion import CrackSeUFusion

__all__ = ['BlockNeck', 'CrackSeUFusion']
