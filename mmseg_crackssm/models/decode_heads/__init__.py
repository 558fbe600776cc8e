from .crackssm_head import CrackSSMHead
from .direction_head import DirectionHead

__all__ = ['CrackSSMHead', 'DirectionHead']
