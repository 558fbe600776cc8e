"""The C kernel for the CPU: what the operators that call it need."""

from .library import (
    INSTRUCTION_SETS,
    SAVED_EVERY,
    BadCallError,
    addresses,
    call,
    instruction_set,
    is_available,
    probe_exp,
    set_instruction_set,
    unavailable_reason,
)

__all__ = [
    'INSTRUCTION_SETS',
    'SAVED_EVERY',
    'BadCallError',
    'addresses',
    'call',
    'instruction_set',
    'is_available',
    'probe_exp',
    'set_instruction_set',
    'unavailable_reason',
]
