from .crack_pid_head import CrackPIDHead
from .crackseu_head import CrackSeUHead, CrackSeUSideHead
from .crackssm_head import CrackSSMHead
from .direction_head import DirectionHead

__all__ = [
    'CrackPIDHead',
    'CrackSSMHead',
    'CrackSeUHead',
    'CrackSeUSideHead',
    'DirectionHead',
]
