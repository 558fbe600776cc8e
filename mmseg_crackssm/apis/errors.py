"""Errors that a user can mend, and how the commands show them."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from ..utils.memory import keep_freed_memory


class UsageError(ValueError):
    """Wrong arguments, config or checkpoint; the message says the remedy."""


def check_output_folder(path: str | Path, option: str) -> None:
    """Make sure that a folder can be written, before the work for it.

    Nothing is created.

    Args:
        path: The folder, which need not exist.
        option: What named it, for the message.

    Raises:
        UsageError: If a file is in its place, or writing is not permitted.
    """
    existing = Path(path).absolute()
    while not os.path.exists(existing) and existing != existing.parent:
        existing = existing.parent
    if not os.path.isdir(existing):
        raise UsageError(
            f'{option} {str(path)!r}: {str(existing)!r} is a file, expected '
            'a folder'
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(
            f'{option} {str(path)!r}: no permission to write in '
            f'{str(existing)!r}, name another folder'
        )


def check_output_file(path: Path, option: str) -> None:
    """Make sure that a file can be written, before the work for it.

    Args:
        path: The file, which need not exist, nor its folder.
        option: What named it, for the message.

    Raises:
        UsageError: If a folder is in its place, or its own folder cannot be
            written.
    """
    if path.is_dir():
        raise UsageError(
            f'{option} {str(path)!r} is a folder, expected the name of a file'
        )
    check_output_folder(path.parent, option)


def run_cli(command: Callable[[], int | None]) -> int:
    """Run a command; end a mendable error with its message alone.

    The process keeps freed memory (:func:`keep_freed_memory`) from here on.
    Every process of a distributed run tells its own, after its rank: a file
    may be missing on one machine alone.

    Args:
        command: Returns the exit code, None for 0.

    Returns:
        The exit code; 1 after :class:`UsageError`, ``FileNotFoundError`` or
        ``PermissionError``. Other errors are bugs and keep their traceback.
    """
    keep_freed_memory()
    try:
        return command() or 0
    except (UsageError, FileNotFoundError, PermissionError) as error:
        rank = os.environ.get('RANK', '0')
        sys.stdout.flush()
        sys.stderr.write(
            f'{"" if rank == "0" else f"[rank {rank}] "}Error: {error}\n'
        )
        return 1
