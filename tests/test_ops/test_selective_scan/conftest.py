"""Inputs for the tests of the selective scan."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from native_scan import REASON
from torch import Tensor

from mmseg_crackssm.ops.selective_scan import native
from triton_support import INTERPRETED, mend_interpreter


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """However many processes share the tests: the kernels' tasks run side by
    side.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


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


def has_instruction_set(name):
    if REASON is not None:
        return False
    level = native.INSTRUCTION_SETS.index(name)
    found = native._library().scan_set_level(level) == level
    native._library().scan_set_level(-1)
    return found


@pytest.fixture
def best_instruction_set():
    """Leave the best instruction set behind, whatever a test forces."""
    yield
    native.set_instruction_set(None)


@pytest.fixture(
    params=[
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                not has_instruction_set(name),
                reason=f'no kernel, or this processor lacks {name}',
            ),
        )
        for name in native.INSTRUCTION_SETS
    ]
)
def instruction_set(request, best_instruction_set):
    native.set_instruction_set(request.param)
    return request.param


@pytest.fixture
def threads():
    """A function that sets the number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(autouse=INTERPRETED)
def mended_interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Triton's interpreter, quick enough and without NumPy's warnings."""
    mend_interpreter(monkeypatch)
    with np.errstate(all='ignore'):
        yield
