"""Which of the two families provides mmseg, mmengine and mmcv.

OneDL's distributions and OpenMMLab's own have the same import names and
exclude each other, so neither is a hard requirement of this package.
"""

import importlib.util
import warnings
from importlib import metadata

# Stack (the name of our extra) -> import name -> distribution.
STACKS = {
    'onedl': {
        'mmseg': 'onedl-mmsegmentation',
        'mmengine': 'onedl-mmengine',
        'mmcv': 'onedl-mmcv',
    },
    'openmmlab': {
        'mmseg': 'mmsegmentation',
        'mmengine': 'mmengine',
        'mmcv': 'mmcv',
    },
}
INSTALL_COMMANDS = {
    'onedl': 'pip install "mmseg_crackssm[onedl]"',
    # mmcv compiles against the torch that is installed; the README says what
    # else must be there.
    'openmmlab': (
        'pip install --no-build-isolation "mmseg_crackssm[openmmlab]"'
    ),
}


def missing_modules() -> list[str]:
    """Import names of the stack that lead to no package."""
    return [name for name in STACKS['onedl'] if not _is_importable(name)]


def installed_distributions() -> dict[str, dict[str, str]]:
    """Versions of what is installed of each stack.

    Returns:
        Stack -> distribution -> version; stacks of which nothing is
        installed are left out.
    """
    found = {
        stack: {
            name: version
            for name in distributions.values()
            if (version := _version(name)) is not None
        }
        for stack, distributions in STACKS.items()
    }
    return {stack: versions for stack, versions in found.items() if versions}


def check_stack() -> None:
    """Make sure that one stack is there, and warn about two.

    Raises:
        ImportError: mmseg, mmengine or mmcv is missing.
    """
    missing = missing_modules()
    if missing:
        raise ImportError(
            f'mmseg_crackssm needs {", ".join(missing)}: run '
            f'{INSTALL_COMMANDS["onedl"]} (recommended) or '
            f'{INSTALL_COMMANDS["openmmlab"]}'
        )
    installed = installed_distributions()
    if len(installed) > 1:
        names = '; '.join(
            ', '.join(f'{name} {version}' for name, version in found.items())
            for found in installed.values()
        )
        warnings.warn(
            'Two stacks with the same import names are installed and '
            f'overwrite each other ({names}). Make a new environment with '
            f'one of them: {" or ".join(INSTALL_COMMANDS.values())}',
            stacklevel=2,
        )


def _is_importable(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    # A folder without __init__.py, such as an uninstalled package leaves
    # behind, gives a spec without origin.
    return spec is not None and spec.origin is not None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
