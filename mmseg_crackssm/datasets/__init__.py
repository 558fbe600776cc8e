from .benchmarks import CrackForestDataset, TUTDataset
from .crack_dataset import CrackDataset
from .synthetic import SyntheticCrackDataset, draw_crack
from .transforms import (
    LoadCrackAnnotations,
    LoadSyntheticCrack,
    RandomCrackCrop,
    RandomDihedral,
)

__all__ = [
    'CrackDataset',
    'CrackForestDataset',
    'LoadCrackAnnotations',
    'LoadSyntheticCrack',
    'RandomCrackCrop',
    'RandomDihedral',
    'SyntheticCrackDataset',
    'TUTDataset',
    'draw_crack',
]
