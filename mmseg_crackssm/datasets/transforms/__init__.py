from .augment import (
    RandomBlurNoise,
    RandomCrackCrop,
    RandomDihedral,
    RandomShadow,
)
from .loading import LoadCrackAnnotations
from .synthetic import LoadSyntheticCrack

__all__ = [
    'LoadCrackAnnotations',
    'LoadSyntheticCrack',
    'RandomBlurNoise',
    'RandomCrackCrop',
    'RandomDihedral',
    'RandomShadow',
]
