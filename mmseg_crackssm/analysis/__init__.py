"""Cost of models: parameters and operations."""

from .flops import (
    count_flops,
    count_params,
    format_report,
    measure_config,
)

__all__ = ['count_flops', 'count_params', 'format_report', 'measure_config']
