"""Inference through the fused scan against sequences, and when it runs."""

import pytest
import torch
from native_scan import needs_kernel

from mmseg_crackssm.models.layers import (
    S6,
    SS2D,
    AdaptiveTokenReordering,
)
from mmseg_crackssm.models.layers.dpsm import SCANS
from mmseg_crackssm.ops import (
    gather_tokens,
    scan_order,
    scatter_tokens,
)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def calls(monkeypatch, one_thread):
    """How often the fused scan ran."""
    calls = []
    along_paths = S6.along_paths

    def counted(self, *args, **kwargs):
        calls.append(self)
        return along_paths(self, *args, **kwargs)

    monkeypatch.setattr(S6, 'along_paths', counted)
    return calls


def both_ways(layer, *inputs):
    """Output and gradients, fused and not; without a gradient fused too."""
    results = [_run(layer, inputs)]
    with torch.no_grad():
        results.append([layer(*inputs)])
    scans = [m for m in layer.modules() if isinstance(m, S6)]
    for scan in scans:
        scan.fused = False
    return *results, _run(layer, inputs)


def _run(layer, inputs):
    layer.zero_grad()
    inputs = [x.detach().requires_grad_() for x in inputs]
    y = layer(*inputs)
    generator = torch.Generator().manual_seed(7)
    y.backward(torch.randn(y.shape, generator=generator).to(y.dtype))
    grads = [p.grad for p in (*inputs, *layer.parameters())]
    return [y.detach(), *(x for x in grads if x is not None)]


def assert_same(results, expected, tolerance):
    for x, y in zip(results, expected, strict=False):
        assert x.shape == y.shape and x.dtype == y.dtype
        assert (x - y).abs().max() < tolerance * y.abs().max().clamp_min(1e-6)


@needs_kernel
@pytest.mark.parametrize('gate', (True, False))
@pytest.mark.parametrize('memory', ('contiguous_format', 'channels_last'))
@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [('float32', 3e-6), ('float64', 1e-12)]
)
def test_ss2d(calls, gate, memory, dtype, tolerance):
    dtype = getattr(torch, dtype)
    torch.manual_seed(0)
    layer = SS2D(12, d_state=5, gate=gate).to(dtype)
    x = torch.randn(2, 12, 7, 10, dtype=dtype).contiguous(
        memory_format=getattr(torch, memory)
    )
    fused, without_gradient, plain = both_ways(layer, x)
    assert len(calls) == 2 and len(fused) == len(plain) > 8
    assert_same(fused, plain, tolerance)
    assert_same(without_gradient, plain, tolerance)


@needs_kernel
@pytest.mark.parametrize('scan', SCANS)
def test_adaptive_token_reordering(calls, scan):
    torch.manual_seed(0)
    layer = AdaptiveTokenReordering(
        24, d_state=4, scan=scan, head_dim=8, norm_cfg=dict(type='BN')
    )
    if layer.das is not None:
        torch.nn.init.normal_(layer.das.offset.weight)
    layer.double()
    fused, without_gradient, plain = both_ways(
        layer, torch.randn(2, 24, 9, 6).double(), torch.randn(2, 4, 5, 3)
    )
    assert len(calls) == 2 and len(fused) == len(plain) > 8
    assert_same(fused, plain, 1e-9)
    assert_same(without_gradient, plain, 1e-9)


@needs_kernel
def test_autocast_keeps_the_scan_in_float32(calls):
    torch.manual_seed(0)
    layer, x = SS2D(12, d_state=5), torch.randn(2, 12, 7, 10)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        fused, _, plain = both_ways(layer, x)
    assert len(calls) == 2
    assert_same(fused, plain, 0.03)
    y = layer.s6.along_paths(
        torch.randn(1, 24, 4, 4).bfloat16().float(),
        scan_order('cross', 4, 4),
        merge=True,
    )
    assert y.dtype == torch.float32


@needs_kernel
@pytest.mark.parametrize('per_image', (True, False))
def test_s6_keeps_paths_apart(one_thread, per_image):
    torch.manual_seed(0)
    layer = S6(10, d_state=3, n_groups=4)
    x = torch.randn(2, 10, 6, 5)
    paths = torch.stack([scan_order(f'snake_{name}', 6, 5) for name in 'hvda'])
    if per_image:
        paths = torch.stack([paths, paths.flip(-1)])
    with torch.no_grad():
        got = layer.along_paths(x, paths, merge=False)
        merged = layer.along_paths(x, paths, merge=True)
        ys = layer(gather_tokens(x.flatten(2).unsqueeze(1), paths))
    ys = scatter_tokens(ys, paths).unflatten(-1, (6, 5))
    torch.testing.assert_close(got, ys.flatten(1, 2), rtol=0, atol=1e-6)
    torch.testing.assert_close(merged, ys.sum(1), rtol=0, atol=1e-6)


@needs_kernel
def test_when_it_runs(calls, monkeypatch):
    layer, x = SS2D(8, d_state=2), torch.randn(1, 8, 6, 6)

    def runs(x=x):
        calls.clear()
        layer(x)
        return len(calls) == 1

    assert runs()
    layer.s6.backend = 'torch'
    assert not runs()
    layer.s6.backend = 'auto'
    monkeypatch.setenv('MMSEG_CRACKSSM_SCAN', 'torch')
    assert not runs()
    monkeypatch.delenv('MMSEG_CRACKSSM_SCAN')
    layer.s6.fused = False
    assert not runs()
    layer.s6.fused = True
    # 16 channels are one task at a time.
    torch.set_num_threads(2)
    assert not runs()
    assert runs(x.expand(2, -1, -1, -1))


@needs_kernel
def test_a_backward_has_a_task_per_sequence(one_thread):
    layer, x = S6(100, d_state=2, n_groups=2), torch.randn(1, 100, 6, 6)
    torch.set_num_threads(3)
    assert not layer.fuses(x)
    with torch.no_grad():
        assert layer.fuses(x)
    assert layer.fuses(x.expand(2, -1, -1, -1))
