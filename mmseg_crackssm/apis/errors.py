"""Errors that a user can mend, and how the commands show them."""

import os
import sys
from collections.abc import Callable


class UsageError(ValueError):
    """Wrong arguments, config or checkpoint; the message says the remedy."""


def run_cli(command: Callable[[], int | None]) -> int:
    """Run a command; end a mendable error with its message alone.

    Args:
        command: Returns the exit code, None for 0.

    Returns:
        The exit code; 1 after :class:`UsageError` or ``FileNotFoundError``.
        Other errors are bugs and keep their traceback.
    """
    try:
        return command() or 0
    except (UsageError, FileNotFoundError) as error:
        if os.environ.get('RANK', '0') == '0':
            sys.stdout.flush()
            sys.stderr.write(f'Error: {error}\n')
        return 1
