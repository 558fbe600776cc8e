"""Pure functions: selective scan, scan orders, sampling, wavelets."""

from .adaptive_sample import adaptive_sample
from .batch_norm import batch_norm_relu
from .mean_gate import mean_gate
from .reorder import gather_tokens, intensity_order, scatter_tokens
from .scan_order import (
    SCAN_ORDERS,
    SNAKE_ORDERS,
    inverse_order,
    inverse_scan_order,
    scan_order,
)
from .selective_scan import (
    available_backends,
    gated_norm,
    resolve_backend,
    selective_scan,
    selective_scan_paths,
)
from .selective_scan.native import serves, serves_maps
from .upsample_concat import upsample_concat
from .wavelet import DWT_MODES, dwt2

__all__ = [
    'DWT_MODES',
    'SCAN_ORDERS',
    'SNAKE_ORDERS',
    'adaptive_sample',
    'available_backends',
    'batch_norm_relu',
    'dwt2',
    'gated_norm',
    'gather_tokens',
    'intensity_order',
    'inverse_order',
    'inverse_scan_order',
    'mean_gate',
    'resolve_backend',
    'scan_order',
    'scatter_tokens',
    'selective_scan',
    'selective_scan_paths',
    'serves',
    'serves_maps',
    'upsample_concat',
]
