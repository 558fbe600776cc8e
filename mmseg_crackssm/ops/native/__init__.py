"""The C kernel for the CPU: what the operators that call it need."""

from .library import (
    FUNCTIONS,
    GATE_ROWS,
    INSTRUCTION_SETS,
    ISA_VARIABLE,
    LIBRARY_NAME,
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
    'FUNCTIONS',
    'GATE_ROWS',
    'INSTRUCTION_SETS',
    'ISA_VARIABLE',
    'LIBRARY_NAME',
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
