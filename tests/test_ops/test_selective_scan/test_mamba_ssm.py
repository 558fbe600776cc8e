"""The wrapper of mamba-ssm's kernel, with a stand-in for the kernel."""

import sys
from types import SimpleNamespace

import pytest
import torch

from mmseg_crackssm.ops.selective_scan import chunked, mamba_ssm


@pytest.fixture
def kernel(monkeypatch):
    """Module with the kernel's signatures that computes by ``chunked``."""

    def fwd(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
        assert z is None
        assert all(x.stride(-1) == 1 for x in (u, delta, A, B, C))
        y, states = chunked.forward(
            u, delta, A, B, C, D, delta_bias, delta_softplus, True
        )
        return torch.empty_like(delta).copy_(y), states, 'rest'

    def bwd(u, delta, A, B, C, D, z, delta_bias, dout, x, out, dz, *flags):
        assert z is None and out is None and dz is None
        delta_softplus, recompute_out_z = flags
        assert recompute_out_z is False
        assert all(t.stride(-1) == 1 for t in (u, delta, A, B, C, dout))
        grads = chunked.backward(
            dout, u, delta, A, B, C, D, delta_bias, delta_softplus, x
        )
        # The kernel allocates with empty_like, which keeps strides, and
        # returns empty tensors where there is no D or bias.
        given = u, delta, A, B, C, D, delta_bias
        return [
            torch.empty(0) if g is None else torch.empty_like(x).copy_(g)
            for x, g in zip(given, grads, strict=True)
        ]

    module = SimpleNamespace(fwd=fwd, bwd=bwd)
    monkeypatch.setitem(sys.modules, 'selective_scan_cuda', module)
    return module


@pytest.mark.parametrize('absent', ((), ('D', 'delta_bias')))
def test_arguments_reach_the_kernel(kernel, make_inputs, absent):
    inputs = make_inputs()
    inputs['u'] = inputs['u'].mT.contiguous().mT
    for name in absent:
        inputs[name] = None
    arguments = (*inputs.values(), True)
    y, states = mamba_ssm.forward(*arguments, True)
    expected, expected_states = chunked.forward(*arguments, True)
    assert torch.equal(y, expected)
    dy = torch.ones(1).expand_as(y)
    grads = mamba_ssm.backward(dy, *arguments, states)
    wanted = chunked.backward(dy, *arguments, expected_states)
    for grad, want, name in zip(grads, wanted, inputs, strict=True):
        assert (grad is None) == (want is None) == (name in absent)
        if grad is not None:
            torch.testing.assert_close(grad, want)


def test_results_are_contiguous(kernel, make_inputs):
    """As the fake kernel announces them, whatever the inputs' strides."""
    inputs = make_inputs()
    for name in ('u', 'delta', 'B', 'C'):
        x = inputs[name]
        inputs[name] = x.transpose(0, 1).contiguous().transpose(0, 1)
        assert inputs[name].stride(-1) == 1
        assert not inputs[name].is_contiguous()
    arguments = (*inputs.values(), True)
    y, states = mamba_ssm.forward(*arguments, True)
    grads = mamba_ssm.backward(inputs['u'], *arguments, states)
    for name, x in zip(('y', *inputs), (y, *grads), strict=True):
        assert x.is_contiguous(), name


def test_states_are_dropped_unless_asked(kernel, make_inputs):
    _, states = mamba_ssm.forward(*make_inputs().values(), True, False)
    assert states.numel() == 0


def test_states_shape():
    sizes = dict(batch=2, dim=8, d_state=16, groups=4, device_type='cuda')
    assert mamba_ssm.states_shape(length=2048, **sizes) == (2, 8, 1, 32)
    assert mamba_ssm.states_shape(length=2049, **sizes) == (2, 8, 2, 32)


def test_reason_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, 'selective_scan_cuda', None)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    mamba_ssm.unavailable_reason.cache_clear()
    try:
        assert 'pip install mamba-ssm' in mamba_ssm.unavailable_reason()
        mamba_ssm.unavailable_reason.cache_clear()
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
        assert 'CUDA' in mamba_ssm.unavailable_reason()
    finally:
        mamba_ssm.unavailable_reason.cache_clear()
