"""What surrounds the Triton kernels, and what they compile to."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from mmseg_crackssm.ops.selective_scan import triton_backend
from triton_support import INSTALLED


@pytest.mark.parametrize(
    ('per_group', 'channels', 'steps', 'warps'),
    ((1, 1, 128, 1), (3, 4, 128, 4), (8, 8, 128, 8), (64, 16, 64, 8)),
)
def test_tiling(per_group, channels, steps, warps):
    found = triton_backend.tiling(dim=3 * per_group, length=129, groups=3)
    assert (found.channels, found.steps) == (channels, steps)
    assert found.num_warps == warps
    assert found.blocks == -(-per_group // channels)
    assert found.tiles == -(-129 // steps)


@pytest.fixture
def reason(monkeypatch):
    """A function that asks for what is missing, with what seems to be."""

    def ask(capability=None, starts=True, installed=True):
        def get_current_target():
            if not starts:
                raise RuntimeError('Failed to find C compiler')

        active = SimpleNamespace(get_current_target=get_current_target)
        driver = SimpleNamespace(active=active)
        fake = SimpleNamespace(runtime=SimpleNamespace(driver=driver))
        monkeypatch.setitem(sys.modules, 'triton', fake if installed else None)
        monkeypatch.setattr(triton_backend, 'TRITON_IS_INTERPRETED', False)
        cuda = torch.cuda
        monkeypatch.setattr(
            cuda, 'is_available', lambda: capability is not None
        )
        monkeypatch.setattr(cuda, 'get_device_capability', lambda: capability)
        return triton_backend.unavailable_reason.__wrapped__()

    return ask


def test_reason_names_the_remedy(reason):
    assert reason(capability=(8, 0)) is None
    assert 'pip install triton' in reason((8, 0), installed=False)
    assert 'needs a CUDA device' in reason()
    assert '7.0 or higher, got 6.1' in reason(capability=(6, 1))
    text = reason(capability=(8, 0), starts=False)
    assert 'Failed to find C compiler' in text and 'apt-get install' in text


@pytest.fixture(scope='module')
def compiled(repo_root, tmp_path_factory):
    if not INSTALLED:
        pytest.skip('needs triton: make test-triton')
    cache = tmp_path_factory.mktemp('triton_cache')
    environment = {**os.environ, 'TRITON_CACHE_DIR': str(cache)}
    environment.pop('TRITON_INTERPRET', None)
    output = subprocess.run(
        [sys.executable, str(repo_root / 'tests' / 'compile_triton.py')],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    # The packages around may write lines of their own.
    lines = [x for x in output.splitlines() if x.startswith('{')]
    return [json.loads(line) for line in lines]


def test_every_kernel_compiles_and_hardly_spills(compiled):
    found = {(row['kernel'], row['architecture']) for row in compiled}
    assert found == {
        (f'{name}_kernel', architecture)
        for name in ('scan', 'summarise', 'chain', 'gradient')
        for architecture in (80, 90)
    }
    assert {row['call'][0] for row in compiled} == {
        'float32',
        'bfloat16',
        'float16',
    }
    assert {row['call'][1] for row in compiled} == {1, 3, 8, 16}
    for row in compiled:
        # Bytes: some addresses that the inner loop does not need.
        assert row['spilled'] <= 128, row
        # Of its registers a multiprocessor has enough for two programs, for
        # one where rows are not aligned.
        programs = 2 if row['call'][2] % 4 == 0 else 1
        assert programs * row['registers'] * row['threads'] <= 65536, row
        assert row['shared'] <= 4096, row


def test_softplus_is_compiled_to_a_precise_logarithm(compiled):
    """The approximate one is off by a fixed amount: too much near 1."""
    assert not any(row['approximate_log'] for row in compiled)
