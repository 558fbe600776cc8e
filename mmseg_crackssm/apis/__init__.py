"""Training, testing and prediction, for Python and the command line.

``python -m mmseg_crackssm.apis.train`` (``.test``, ``.predict``) are the
commands of ``tools/``, for installations without a checkout. The functions
are imported on first use, so that these modules are not loaded twice.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    'find_config': 'config',
    'init_model': 'inference',
    'load_config': 'config',
    'load_weights': 'checkpoint',
    'predict_files': 'predict',
    'predict_image': 'inference',
    'predict_images': 'inference',
    'test_model': 'test',
    'train_model': 'train',
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f'{__name__}.{_HOMES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return __all__
