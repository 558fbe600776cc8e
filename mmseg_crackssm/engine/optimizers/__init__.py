from .amp_optim_wrapper import BFloat16OptimWrapper
from .build_optimizer import build_optimizer
from .optim_constructor import NoDecayOptimWrapperConstructor

__all__ = [
    'BFloat16OptimWrapper',
    'NoDecayOptimWrapperConstructor',
    'build_optimizer',
]
