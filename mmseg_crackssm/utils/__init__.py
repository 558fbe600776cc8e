from .memory import keep_freed_memory
from .stack import (
    INSTALL_COMMANDS,
    STACKS,
    check_stack,
    installed_distributions,
    missing_modules,
)

__all__ = [
    'INSTALL_COMMANDS',
    'STACKS',
    'check_stack',
    'installed_distributions',
    'keep_freed_memory',
    'missing_modules',
]
