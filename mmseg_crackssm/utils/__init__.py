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
    'missing_modules',
]
