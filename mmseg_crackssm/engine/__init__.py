from .hooks import (
    CrackVisualizationHook,
    PlainCheckpointHook,
    TimeBudgetHook,
)
from .loops import ReproducibleIterBasedTrainLoop
from .optimizers import BFloat16OptimWrapper, NoDecayOptimWrapperConstructor

__all__ = [
    'BFloat16OptimWrapper',
    'CrackVisualizationHook',
    'NoDecayOptimWrapperConstructor',
    'PlainCheckpointHook',
    'ReproducibleIterBasedTrainLoop',
    'TimeBudgetHook',
]
