from .hooks import (
    CrackVisualizationHook,
    PlainCheckpointHook,
    TimeBudgetHook,
)
from .loops import ReproducibleIterBasedTrainLoop
from .optimizers import CPUAmpOptimWrapper, NoDecayOptimWrapperConstructor

__all__ = [
    'CPUAmpOptimWrapper',
    'CrackVisualizationHook',
    'NoDecayOptimWrapperConstructor',
    'PlainCheckpointHook',
    'ReproducibleIterBasedTrainLoop',
    'TimeBudgetHook',
]
