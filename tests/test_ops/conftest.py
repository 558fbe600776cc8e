"""The kernel's instruction sets and threads, for the tests of operators."""

from collections.abc import Iterator

import pytest
import torch
from native_scan import REASON

from mmseg_crackssm.ops.native import library


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """However many processes share the tests: the kernels' tasks run side by
    side.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def has_instruction_set(name):
    if REASON is not None:
        return False
    level = library.INSTRUCTION_SETS.index(name)
    found = library._library().native_set_level(level) == level
    library._library().native_set_level(-1)
    return found


@pytest.fixture
def best_instruction_set():
    """Leave the best instruction set behind, whatever a test forces."""
    yield
    library.set_instruction_set(None)


@pytest.fixture(
    params=[
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                not has_instruction_set(name),
                reason=f'no kernel, or this processor lacks {name}',
            ),
        )
        for name in library.INSTRUCTION_SETS
    ]
)
def instruction_set(request, best_instruction_set):
    library.set_instruction_set(request.param)
    return request.param


@pytest.fixture
def threads():
    """A function that sets the number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
