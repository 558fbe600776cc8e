"""Pure functions: selective scan, scan orders, sampling, wavelets."""

from .adaptive_sample import adaptive_sample
from .native.batch_norm import batch_norm_relu
from .native.gated_norm import gated_norm
from .native.mean_gate import mean_gate
from .native.serving import serves, serves_maps
from .native.upsample_concat import upsample_concat
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
    resolve_backend,
    selective_scan,
    selective_scan_paths,
)
from .wavelet import DWT_MODES, dwt2, high_bands

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
    'high_bands',
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
