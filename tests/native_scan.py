"""What the tests of the C kernel share: inputs, and both ways to run them."""

import re

import pytest
import torch

from mmseg_crackssm.ops import native
from mmseg_crackssm.ops.selective_scan import native as backend
from mmseg_crackssm.ops.selective_scan.reference import (
    selective_scan_reference,
)

NAMES = ('u', 'delta', 'A', 'B', 'C', 'D', 'delta_bias')
REASON = native.library._load()[1]
needs_kernel = pytest.mark.skipif(
    REASON is not None, reason=f'native scan: {REASON}'
)


def draw(dim=20, length=129, d_state=4, groups=2, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    return {
        'u': normal(batch, dim, length),
        'delta': normal(batch, dim, length) - 1,
        'A': -torch.exp(0.5 * normal(dim, d_state)),
        'B': normal(batch, groups, d_state, length),
        'C': normal(batch, groups, d_state, length),
        'D': normal(dim),
        'delta_bias': 0.5 * normal(dim),
    }


def struct_format(repo_root, name):
    """A structure of csrc/calls.h as Python's ``struct`` writes it.

    Pointers, then 64-bit integers, then doubles.
    """
    header = repo_root / 'mmseg_crackssm/ops/native/csrc/calls.h'
    before, _, _ = header.read_text().partition(f'}} {name};')
    fields = re.sub(r'/\*.*?\*/', '', before, flags=re.S)
    lines = [line.strip() for line in fields.split('{')[-1].split(';')]
    codes = ''
    for line in lines:
        if '*' in line:
            codes += 'P' * line.count('*')
        elif line:
            code = 'q' if line.startswith('int64_t') else 'd'
            codes += code * (line.count(',') + 1)
    return ''.join(
        (str(len(run)) if len(run) > 1 else '') + run[0]
        for run in re.findall('P+|q+|d+', codes)
    )


def output_gradient(u):
    generator = torch.Generator().manual_seed(7)
    return torch.randn(u.shape, generator=generator)


def run_native(inputs, softplus=True, dy=None):
    """Output and gradients by name."""
    arguments = [inputs.get(name) for name in NAMES]
    dy = output_gradient(inputs['u']) if dy is None else dy
    y, states = backend.forward(*arguments, softplus, True)
    grads = backend.backward(dy.to(y.dtype), *arguments, softplus, states)
    return {'y': y, **dict(zip(NAMES, grads, strict=True))}


def run_reference(inputs, softplus=True, dy=None):
    """The same from the loop in float64."""
    inputs = {
        name: x.double().detach().requires_grad_()
        for name, x in inputs.items()
    }
    dy = output_gradient(inputs['u']) if dy is None else dy
    y = selective_scan_reference(**inputs, delta_softplus=softplus)
    y.backward(dy.double())
    return {
        'y': y.detach(),
        **{
            name: inputs[name].grad if name in inputs else None
            for name in NAMES
        },
    }


def assert_close(actual, expected, tolerance=3e-6):
    """Largest error relative to the largest value, tensor by tensor."""
    for name, x in expected.items():
        if x is None:
            assert actual[name] is None, name
            continue
        assert actual[name].shape == x.shape, name
        scale = x.abs().max().clamp_min(1e-30)
        error = (actual[name].double() - x).abs().max() / scale
        assert error < tolerance, (name, error.item())
