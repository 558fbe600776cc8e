"""Crack segmentation with state-space models for MMSegmentation.

Importing the package registers its classes in ``mmseg.registry``.
"""

from .utils.stack import check_stack
from .version import __version__

# Before anything imports mmseg, so that a missing stack gives one clear line.
check_stack()

from . import datasets, engine, evaluation, models  # noqa: E402

__all__ = ['__version__', 'datasets', 'engine', 'evaluation', 'models']
