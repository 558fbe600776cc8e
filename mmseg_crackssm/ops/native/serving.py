"""Whether the C kernel takes tensors as they are."""

import torch
from torch import Tensor

from ..selective_scan.backends import requested_backend
from .library import is_available


def serves(*tensors: Tensor | None) -> bool:
    """Whether the kernel computes with tensors, if it has an operator for it.

    It does in one precision on the CPU, unless the environment variable of
    the scan's backend asks for another. A traced model holds PyTorch's own
    operators.

    Args:
        tensors: None counts for nothing.
    """
    if torch.compiler.is_compiling():
        return False
    if requested_backend('auto') not in ('auto', 'native'):
        return False
    kinds = {(x.device.type, x.dtype) for x in tensors if x is not None}
    return (
        kinds in ({('cpu', torch.float32)}, {('cpu', torch.float64)})
        and is_available()
    )


def serves_maps(*maps: Tensor | None) -> bool:
    """Whether the kernel takes maps as they lie in memory: channels last.

    Args:
        maps: (B, C, H, W); None counts for nothing.
    """
    return serves(*maps) and all(
        x is None or x.is_contiguous(memory_format=torch.channels_last)
        for x in maps
    )
