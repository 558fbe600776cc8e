"""The order in memory that kernels ask of their inputs."""

from torch import Tensor


def unit_time_stride(x: Tensor) -> Tensor:
    """``x`` itself where consecutive steps are neighbours, else a copy."""
    return x if x.stride(-1) == 1 else x.contiguous()


def contiguous(x: Tensor | None) -> Tensor | None:
    """``x`` itself where it has no gaps, else a copy; None stays None."""
    return None if x is None else x.contiguous()
