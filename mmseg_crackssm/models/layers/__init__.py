"""Building blocks of the models."""

from .crackmamba_block import CrackMambaBlock
from .damamba_block import DAMambaBlock, DynamicAdaptiveSSM
from .das import DynamicAdaptiveScan
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
from .ss2d import SS2D, cross_merge, cross_scan, scan_cross
from .vim_block import BidirectionalMamba, VimBlock
from .vss_block import BLOCK_STYLES, VanillaVSSBlock, VSSBlock
from .wavelet_gate import WaveletGate

__all__ = [
    'BLOCK_STYLES',
    'DIRECTIONS',
    'DPSM',
    'S6',
    'AdaptiveTokenReordering',
    'BidirectionalMamba',
    'CrackMambaBlock',
    'DAMambaBlock',
    'DirectionMap',
    'DynamicAdaptiveSSM',
    'DynamicAdaptiveScan',
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
    'VanillaVSSBlock',
    'VimBlock',
    'cross_merge',
    'cross_scan',
    'scan_cross',
]
