"""Scores of crack segmentation: pure functions, and mmseg metrics on top."""

from .crack_metric import CrackMetric
from .functional import (
    THRESHOLDS,
    confusion_counts,
    crack_scores,
    logit_map,
    precision_recall_f1,
    regroup_levels,
    threshold_edges,
    threshold_histogram,
)
from .scorer import CrackScorer, Difference, Figures, Interval

__all__ = [
    'THRESHOLDS',
    'CrackMetric',
    'CrackScorer',
    'Difference',
    'Figures',
    'Interval',
    'confusion_counts',
    'crack_scores',
    'logit_map',
    'precision_recall_f1',
    'regroup_levels',
    'threshold_edges',
    'threshold_histogram',
]
