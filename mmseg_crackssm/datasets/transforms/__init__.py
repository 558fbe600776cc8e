from .augment import (
    RandomCrackCrop,
    RandomDihedral,
)
from .loading import LoadCrackAnnotations
from .synthetic import LoadSyntheticCrack

__all__ = [
    'LoadCrackAnnotations',
    'LoadSyntheticCrack',
    'RandomCrackCrop',
    'RandomDihedral',
]
