from .binary_loss import CrackBCELoss, CrackCoarseBCELoss, CrackDiceLoss
from .direction_loss import CrackDirectionLoss, direction_target

__all__ = [
    'CrackBCELoss',
    'CrackCoarseBCELoss',
    'CrackDiceLoss',
    'CrackDirectionLoss',
    'direction_target',
]
