from .benchmarks import CrackForestDataset, TUTDataset
from .crack_dataset import CrackDataset
from .synthetic import SyntheticCrackDataset, draw_crack
from .transforms import (
    LoadCrackAnnotations,
    LoadSyntheticCrack,
    RandomBlurNoise,
    RandomCrackCrop,
    RandomDihedral,
    RandomShadow,
)

__all__ = [
    'CrackDataset',
    'CrackForestDataset',
    'LoadCrackAnnotations',
    'LoadSyntheticCrack',
    'RandomBlurNoise',
    'RandomCrackCrop',
    'RandomDihedral',
    'RandomShadow',
    'SyntheticCrackDataset',
    'TUTDataset',
    'draw_crack',
]
