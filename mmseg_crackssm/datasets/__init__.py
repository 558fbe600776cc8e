from .benchmarks import (
    AigleRNDataset,
    Crack500Dataset,
    CrackForestDataset,
    CrackLS315Dataset,
    CrackMapDataset,
    CrackSeg9kDataset,
    CrackTree206Dataset,
    CrackTree260Dataset,
    CRKWH100Dataset,
    DeepCrackDataset,
    ESARDataset,
    GAPs384Dataset,
    SteelCrackDataset,
    Stone331Dataset,
    TUTDataset,
)
from .crack_dataset import CrackDataset
from .folder_dataset import CrackFolderDataset
from .synthetic import SyntheticCrackDataset, draw_crack
from .transforms import (
    LoadCrackAnnotations,
    LoadSyntheticCrack,
    RandomCrackCrop,
    RandomDihedral,
)

__all__ = [
    'AigleRNDataset',
    'CRKWH100Dataset',
    'Crack500Dataset',
    'CrackFolderDataset',
    'CrackLS315Dataset',
    'CrackMapDataset',
    'CrackSeg9kDataset',
    'CrackTree206Dataset',
    'CrackTree260Dataset',
    'DeepCrackDataset',
    'ESARDataset',
    'GAPs384Dataset',
    'SteelCrackDataset',
    'Stone331Dataset',
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
