"""Which tensors the kernel takes as they are."""

import pytest
import torch
from native_scan import needs_kernel

from mmseg_crackssm.ops import serves, serves_maps
from mmseg_crackssm.ops.native import serving
from mmseg_crackssm.ops.selective_scan.backends import ENVIRONMENT_VARIABLE


def draw(dtype=torch.float32, device='cpu'):
    x = torch.zeros(2, 3, 4, 5, dtype=dtype, device=device)
    return x.contiguous(memory_format=torch.channels_last)


@needs_kernel
@pytest.mark.parametrize('dtype', (torch.float32, torch.float64))
def test_one_precision_on_the_cpu(dtype):
    assert serves(draw(dtype), None, torch.zeros(3, dtype=dtype))
    assert serves_maps(draw(dtype), None)


@pytest.mark.parametrize(
    'tensors',
    (
        (),
        (None,),
        (draw(torch.bfloat16),),
        (draw(), draw(torch.float64)),
        (draw(), draw(device='meta')),
    ),
    ids=('none', 'None', 'bfloat16', 'two precisions', 'two devices'),
)
def test_other_tensors(tensors):
    assert not serves(*tensors) and not serves_maps(*tensors)


@needs_kernel
def test_maps_lie_channels_last():
    assert serves(draw().contiguous())
    assert not serves_maps(draw(), draw().contiguous())


@needs_kernel
@pytest.mark.parametrize(
    ('asked', 'expected'), (('native', True), ('torch', False))
)
def test_another_backend_is_asked_for(monkeypatch, asked, expected):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, asked)
    assert serves(draw()) is expected


def test_without_the_kernel(monkeypatch):
    monkeypatch.setattr(serving, 'is_available', lambda: False)
    assert not serves(draw())


def test_a_trace_is_portable(monkeypatch):
    monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
    assert not serves(draw())
