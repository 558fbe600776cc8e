"""What the kernel's operators ask of their arguments."""

from collections.abc import Sequence

import torch
from torch import Tensor

PRECISIONS = (torch.float32, torch.float64)


def check_companion(
    name: str,
    tensor: Tensor,
    shape: Sequence[int],
    x: Tensor,
    of: str = 'x',
    like: str = 'x',
) -> None:
    """Refuse an input that does not go with the main one.

    Args:
        name: Of the argument.
        tensor: Its value.
        shape: What its shape has to be.
        x: The main input, which says precision and device.
        of: Name of what says the shape.
        like: Name of the main input.

    Raises:
        ValueError: Shape, precision or device do not fit.
    """
    if tensor.shape != tuple(shape):
        raise ValueError(
            f'{name}: expected {tuple(shape)} to go with {of}, got '
            f'{tuple(tensor.shape)}.'
        )
    if tensor.dtype != x.dtype or tensor.device != x.device:
        raise ValueError(
            f'{name}: expected {x.dtype} on {x.device} like {like}, '
            f'got {tensor.dtype} on {tensor.device}.'
        )


def channels_last(x: Tensor | None) -> Tensor | None:
    """A map as the kernel reads it; copied where it lies otherwise.

    Args:
        x: (B, C, H, W), or None.
    """
    if x is None:
        return None
    return x.contiguous(memory_format=torch.channels_last)
