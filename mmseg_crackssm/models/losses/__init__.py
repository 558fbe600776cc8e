from .binary_loss import CrackBCELoss, CrackDiceLoss
from .direction_loss import CrackDirectionLoss, direction_target

__all__ = [
    'CrackBCELoss',
    'CrackDiceLoss',
    'CrackDirectionLoss',
    'direction_target',
]
