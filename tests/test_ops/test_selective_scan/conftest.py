"""Inputs for the tests of the selective scan."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from triton_support import INTERPRETED, mend_interpreter


@pytest.fixture
def make_inputs() -> Callable[..., dict[str, Tensor]]:
    """A function that draws a full set of scan inputs by keyword."""

    def make(
        batch: int = 2,
        dim: int = 4,
        length: int = 37,
        d_state: int = 3,
        groups: int | None = 2,
        dtype: torch.dtype = torch.float32,
        requires_grad: bool = False,
    ) -> dict[str, Tensor]:
        form = (batch,) if groups is None else (batch, groups)
        inputs = {
            'u': torch.randn(batch, dim, length),
            # Positive with and without softplus: states must decay.
            'delta': torch.rand(batch, dim, length),
            'A': -0.1 - torch.rand(dim, d_state),
            'B': torch.randn(*form, d_state, length),
            'C': torch.randn(*form, d_state, length),
            'D': torch.randn(dim),
            'delta_bias': torch.rand(dim),
        }
        return {
            name: x.to(dtype).requires_grad_(requires_grad)
            for name, x in inputs.items()
        }

    return make


@pytest.fixture(autouse=INTERPRETED)
def mended_interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Triton's interpreter, quick enough and without NumPy's warnings."""
    mend_interpreter(monkeypatch)
    with np.errstate(all='ignore'):
        yield
