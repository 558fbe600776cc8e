from .amp_optim_wrapper import CPUAmpOptimWrapper
from .optim_constructor import NoDecayOptimWrapperConstructor

__all__ = ['CPUAmpOptimWrapper', 'NoDecayOptimWrapperConstructor']
