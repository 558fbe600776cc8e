import math

import pytest
import torch
import torch.nn.functional as F

from checks import untrained_parameters
from mmseg_crackssm.models.layers import S6, s6


def reference(layer: S6, xs: torch.Tensor) -> torch.Tensor:
    """S6 written out sequence by sequence, token by token."""
    batch, groups, dim, length = xs.shape
    state = layer.d_state
    A = -layer.A_log.exp().view(groups, dim, state)
    D = layer.D.view(groups, dim)
    outs = torch.zeros_like(xs)
    for k in range(groups):
        h = xs.new_zeros(batch, dim, state)
        for t in range(length):
            x = xs[:, k, :, t]
            projected = x @ layer.x_proj_weight[k].T
            dt, B, C = projected.split((layer.dt_rank, state, state), dim=-1)
            dt = dt @ layer.dt_proj_weight[k].T + layer.dt_proj_bias[k]
            dt = F.softplus(dt)[..., None]
            h = torch.exp(dt * A[k]) * h + dt * B[:, None] * x[..., None]
            outs[:, k, :, t] = (h * C[:, None]).sum(-1) + D[k] * x
    return outs


@pytest.mark.parametrize('d_state', [1, 4])
@pytest.mark.parametrize('n_groups', [1, 3])
def test_equals_the_loop(d_state, n_groups):
    layer = S6(6, d_state=d_state, dt_rank=2, n_groups=n_groups).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    xs = torch.randn(2, n_groups, 6, 11, dtype=torch.float64)
    torch.testing.assert_close(
        layer(xs), reference(layer, xs), rtol=1e-9, atol=1e-9
    )


def test_initial_values():
    layer = S6(32, d_state=8)
    assert layer.dt_rank == 2
    assert torch.equal(layer.D, torch.ones(128))
    torch.testing.assert_close(
        layer.A_log.exp(), torch.arange(1.0, 9.0).expand(128, 8)
    )
    dt = F.softplus(layer.dt_proj_bias)
    assert 1e-3 * 0.999 <= dt.min() < 5e-3
    assert 0.05 < dt.max() <= 0.1 * 1.001
    # Log-uniform: half lie below the geometric mean of the limits.
    assert 0.3 < (dt < math.sqrt(1e-3 * 0.1)).float().mean() < 0.7


def test_every_parameter_gets_a_gradient():
    layer = S6(8, d_state=2)
    layer(torch.randn(2, 4, 8, 9)).square().sum().backward()
    assert untrained_parameters(layer) == []


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_scan_stays_in_float32_under_autocast(monkeypatch, dtype):
    seen = []

    def spy(*args, **kwargs):
        tensors = [*args, *kwargs.values()]
        seen.extend(x.dtype for x in tensors if isinstance(x, torch.Tensor))
        return selective_scan(*args, **kwargs)

    selective_scan = s6.selective_scan
    monkeypatch.setattr(s6, 'selective_scan', spy)
    layer = S6(8, d_state=2)
    with torch.autocast('cpu', dtype=dtype):
        out = layer(torch.randn(1, 4, 8, 9).to(dtype))
    assert set(seen) == {torch.float32} and len(seen) == 7
    assert out.dtype == torch.float32
    assert out.isfinite().all()


def test_scan_dtype_float64(monkeypatch):
    seen = []

    def spy(u, *args, **kwargs):
        seen.append(u.dtype)
        return selective_scan(u, *args, **kwargs)

    selective_scan = s6.selective_scan
    monkeypatch.setattr(s6, 'selective_scan', spy)
    layer = S6(4, d_state=2, n_groups=1, scan_dtype='float64')
    assert layer(torch.randn(1, 1, 4, 5)).dtype == torch.float32
    assert seen == [torch.float64]


def test_backend_is_passed_on(monkeypatch):
    seen = {}

    def spy(u, *args, **kwargs):
        seen.update(kwargs)
        return u

    monkeypatch.setattr(s6, 'selective_scan', spy)
    S6(4, n_groups=1, backend='torch')(torch.randn(1, 1, 4, 5))
    assert seen['backend'] == 'torch'


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(d_inner=0), 'd_inner'),
        (dict(d_inner=4, dt_rank='half'), 'dt_rank'),
        (dict(d_inner=4, n_groups=0), 'n_groups'),
        (dict(d_inner=4, scan_dtype='float16'), 'scan_dtype'),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        S6(**kwargs)


def test_bad_input():
    with pytest.raises(ValueError, match=r'\(B, 4, 8, L\)'):
        S6(8)(torch.randn(1, 3, 8, 9))
