"""Files of a folder by what identifies them in their names."""

from collections.abc import Sequence
from pathlib import Path

from ..apis.errors import UsageError
from .crack_dataset import printable, strip_suffix


def files_by_name(
    folder: Path,
    suffixes: Sequence[str],
    *,
    clash: str,
    prefix: str = '',
    with_folders: bool = True,
) -> dict[str, Path]:
    """List a folder and its sub-folders.

    Args:
        folder: The folder.
        suffixes: Endings of the files to list, in upper or lower case.
        clash: What to say of two files of one name, after naming them.
        prefix: What the names of the files begin with.
        with_folders: Whether sub-folders are part of a name.

    Returns:
        Files by name, without prefix and suffix, in the order of their paths.

    Raises:
        FileNotFoundError: If there is no such folder.
        UsageError: If two files have one name.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f'{printable(folder)} is no folder: expected one of images'
        )
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob('*')):
        name = (
            path.relative_to(folder).as_posix() if with_folders else path.name
        )
        stem = strip_suffix(name, tuple(suffixes))
        if stem is None or not stem.startswith(prefix) or not path.is_file():
            continue
        stem = stem[len(prefix) :]
        if stem in files:
            raise UsageError(
                f'{printable(files[stem])} and {printable(path)} {clash}'
            )
        files[stem] = path
    return files
