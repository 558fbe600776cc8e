"""Cost of models: parameters and operations."""

from .flops import (
    count_flops,
    count_params,
    format_report,
    measure_config,
)
from .paper_counting import measure_config_as_papers

__all__ = [
    'count_flops',
    'count_params',
    'format_report',
    'measure_config',
    'measure_config_as_papers',
]
