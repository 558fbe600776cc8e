from .amp_optim_wrapper import BFloat16OptimWrapper
from .optim_constructor import NoDecayOptimWrapperConstructor

__all__ = ['BFloat16OptimWrapper', 'NoDecayOptimWrapperConstructor']
