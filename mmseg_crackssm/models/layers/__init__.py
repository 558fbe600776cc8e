"""Building blocks of the models."""

from .direction_map import DIRECTIONS, DirectionMap
from .dpsm import DPSM, AdaptiveTokenReordering
from .gro import GlobalReoptimization
from .patch_layers import (
    ConvDownsample,
    ConvStem,
    LayerNorm2d,
    Linear2d,
    PatchifyStem,
    PatchMerging2d,
)
from .s6 import S6
from .ss2d import SS2D, cross_merge, cross_scan
from .vss_block import BLOCK_STYLES, VSSBlock
from .wavelet_gate import WaveletGate

__all__ = [
    'BLOCK_STYLES',
    'DIRECTIONS',
    'DPSM',
    'S6',
    'AdaptiveTokenReordering',
    'DirectionMap',
    'GlobalReoptimization',
    'WaveletGate',
    'SS2D',
    'ConvDownsample',
    'ConvStem',
    'LayerNorm2d',
    'Linear2d',
    'PatchMerging2d',
    'PatchifyStem',
    'VSSBlock',
    'cross_merge',
    'cross_scan',
]
