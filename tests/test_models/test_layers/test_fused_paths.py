"""Inference through the fused scan against sequences, and when it runs."""

import pytest
import torch
from native_scan import needs_kernel

from mmseg_crackssm.models.layers import S6, SS2D, AdaptiveTokenReordering
from mmseg_crackssm.ops import gather_tokens, scan_order, scatter_tokens


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
    with torch.no_grad():
        return layer(*inputs), _unfused(layer, *inputs)


def _unfused(layer, *inputs):
    scans = [m for m in layer.modules() if isinstance(m, S6)]
    for scan in scans:
        scan.fused = False
    try:
        return layer(*inputs)
    finally:
        for scan in scans:
            scan.fused = True


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
    fused, plain = both_ways(layer, x)
    assert len(calls) == 1
    assert fused.shape == plain.shape
    assert (fused - plain).abs().max() < tolerance * plain.abs().max()


@needs_kernel
@pytest.mark.parametrize('reorder', (True, False))
def test_adaptive_token_reordering(calls, reorder):
    torch.manual_seed(0)
    layer = AdaptiveTokenReordering(
        24, d_state=4, reorder=reorder, norm_cfg=dict(type='BN')
    )
    layer.eval()
    fused, plain = both_ways(
        layer, torch.randn(2, 24, 9, 6), torch.randn(2, 4, 5, 3)
    )
    assert len(calls) == 1
    assert (fused - plain).abs().max() < 3e-6 * plain.abs().max()


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

    with torch.no_grad():
        assert runs()
        with torch.autocast('cpu', dtype=torch.bfloat16):
            assert not runs()
        # 16 channels are one task at a time.
        torch.set_num_threads(2)
        assert not runs()
        assert runs(x.expand(2, -1, -1, -1))
        torch.set_num_threads(1)
        layer.s6.backend = 'torch'
        assert not runs()
        layer.s6.backend = 'auto'
        monkeypatch.setenv('MMSEG_CRACKSSM_SCAN', 'torch')
        assert not runs()
        monkeypatch.delenv('MMSEG_CRACKSSM_SCAN')
        layer.s6.scan_dtype = torch.float64
        assert not runs()
        layer.s6.scan_dtype = torch.float32
        assert runs()
    assert not runs()
