"""Fixtures shared by all tests."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from torchvision_support import make_torchvision_importable

REPO_ROOT = Path(__file__).resolve().parents[1]

# Some tests measure memory: malloc must give it back, here and in the commands
# that tests start.
os.environ.setdefault('MMSEG_CRACKSSM_KEEP_MEMORY', '0')

# Where several processes share the tests, each has one thread, and so have the
# commands that it starts.
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ.setdefault('OMP_NUM_THREADS', '1')

# Two threads, as on the machine the time budgets are written for; more
# only makes the tiny tensors of the tests slower.
torch.set_num_threads(
    int(os.environ.get('OMP_NUM_THREADS') or min(2, os.cpu_count() or 1))
)


def pytest_configure() -> None:
    """Before any test imports mmseg, which may import torchvision."""
    make_torchvision_importable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked ``gpu`` where torch sees no CUDA device.

    The tools come first: their tests take longest, and none of several
    processes shall be left with them in the end.
    """
    items.sort(key=lambda item: 'test_tools' not in item.path.parts)
    if torch.cuda.is_available():
        return
    for item in items:
        if 'gpu' in item.keywords:
            item.add_marker(pytest.mark.skip(reason='needs a CUDA device'))


def shared_path(*parts: str) -> Path:
    """Path of shared test material, or skip the calling test.

    The material (reference outputs, real images) is too large for the
    repository. It is looked for in ``$CRACKSSM_SHARED``, by default the
    folder ``shared`` beside the checkout. Where the variable is set by
    hand, something missing is an error and not a skip.
    """
    by_hand = os.environ.get('CRACKSSM_SHARED')
    root = Path(by_hand) if by_hand else REPO_ROOT.parent / 'shared'
    path = root.joinpath(*parts)
    if not path.exists():
        name = '/'.join(parts)
        if by_hand:
            pytest.fail(f'CRACKSSM_SHARED={by_hand} holds no {name}')
        pytest.skip(
            f'shared material {name!r} is absent: set CRACKSSM_SHARED to '
            'the folder that holds it'
        )
    return path


@pytest.fixture(scope='session')
def repo_root() -> Path:
    """Root of the checkout, where ``configs/`` and ``tools/`` are."""
    return REPO_ROOT


@pytest.fixture(scope='session')
def golden_dir() -> Path:
    """Folder of the reference outputs (``golden/*.pt``, ``counts.json``)."""
    return shared_path('golden')


@pytest.fixture(scope='session')
def crack_data_dir() -> Path:
    """Folder of the real crack images (holds ``cfd/``)."""
    return shared_path('data')


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Seed every random generator, so that a test gives one result."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
