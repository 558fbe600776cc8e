"""The selective scan (S6): one operator, several backends."""

from .backends import (
    BACKENDS,
    available_backends,
    resolve_backend,
    unavailable_reason,
)
from .flops import selective_scan_backward_flops, selective_scan_flops
from .interface import selective_scan
from .paths import selective_scan_paths
from .reference import selective_scan_reference

__all__ = [
    'BACKENDS',
    'available_backends',
    'resolve_backend',
    'selective_scan',
    'selective_scan_backward_flops',
    'selective_scan_flops',
    'selective_scan_paths',
    'selective_scan_reference',
    'unavailable_reason',
]
