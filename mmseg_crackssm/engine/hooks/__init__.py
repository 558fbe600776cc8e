from .plain_checkpoint_hook import PlainCheckpointHook
from .time_budget_hook import TimeBudgetHook
from .visualization_hook import CrackVisualizationHook

__all__ = [
    'CrackVisualizationHook',
    'PlainCheckpointHook',
    'TimeBudgetHook',
]
