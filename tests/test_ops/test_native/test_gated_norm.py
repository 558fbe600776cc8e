"""Normalisation and gate in one pass against torch's three."""

import pytest
import torch
import torch.nn.functional as F
from native_scan import needs_kernel, struct_format
from operator_checks import assert_close, assert_repeats, in_double, run

from mmseg_crackssm.ops import gated_norm
from mmseg_crackssm.ops.native import gated_norm as module

pytestmark = needs_kernel


def by_torch(x, z, weight, bias, eps=1e-5):
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps) * F.silu(z)


def draw(*shape, dtype=torch.float32):
    """x, z, weight, bias; x far from zero, z on both sides of it."""
    generator = torch.Generator().manual_seed(0)
    channels = shape[-1:]
    shapes = (shape, shape, channels, channels)
    x, z, weight, bias = (
        torch.randn(s, generator=generator, dtype=dtype) for s in shapes
    )
    return [3 * x + 5, 4 * z, weight, bias]


@pytest.mark.parametrize('rows', (1, 15, 16, 17, 64, 150))
@pytest.mark.parametrize('channels', (3, 4, 16, 17, 64, 100))
def test_output_and_gradients(instruction_set, rows, channels):
    inputs = draw(rows, channels)
    dy = torch.randn(rows, channels)
    expected = run(by_torch, in_double(inputs), dy)
    assert_close(run(gated_norm, inputs, dy), expected, tolerance=5e-6)


@pytest.mark.parametrize('shape', ((5,), (150, 7), (2, 3, 4, 33)))
def test_float64(shape):
    inputs, dy = draw(*shape, dtype=torch.float64), torch.randn(shape)
    expected = run(by_torch, inputs, dy)
    assert_close(run(gated_norm, inputs, dy), expected, tolerance=1e-12)


def test_gradcheck():
    inputs = [x.requires_grad_() for x in draw(2, 3, 5, dtype=torch.float64)]
    assert torch.autograd.gradcheck(gated_norm, inputs)


@pytest.mark.parametrize('name', ('x', 'z', 'dy'))
@pytest.mark.parametrize('form', ('gaps', 'turned', 'shared'))
def test_any_strides(name, form):
    index = dict(x=0, z=1, dy=2)[name]
    x, z, weight, bias = draw(6, 10, 20)
    tensors = [x, z, torch.randn(6, 10, 20)]
    if form == 'gaps':
        tensors[index] = torch.cat([tensors[index]] * 2, dim=-1)[..., 20:]
    elif form == 'turned':
        tensors[index] = tensors[index].transpose(0, 2).contiguous()
        tensors[index] = tensors[index].transpose(0, 2)
    else:
        tensors[index] = tensors[index][:1].expand(6, 10, 20)
    *tensors, dy = tensors
    inputs = [*tensors, weight, bias]
    assert_close(
        run(gated_norm, inputs, dy), run(by_torch, inputs, dy), tolerance=1e-5
    )


def test_one_channel_gives_the_bias():
    inputs, dy = draw(150, 1), torch.randn(150, 1)
    y, dx, *grads = run(gated_norm, inputs, dy)
    expected = run(by_torch, in_double(inputs), dy)
    assert_close([y, *grads], [expected[0], *expected[2:]], tolerance=1e-5)
    assert dx.abs().max() < 1e-6


@pytest.mark.parametrize('shape', ((0, 4), (3, 0), (2, 0, 5)))
def test_empty(shape):
    inputs, dy = draw(*shape), torch.randn(shape)
    for result, x in zip(
        run(gated_norm, inputs, dy), (dy, *inputs), strict=True
    ):
        assert result.shape == x.shape
        assert not result.any()


def test_what_is_not_finite_stays_in_its_row(instruction_set):
    inputs, dy = draw(40, 20), torch.randn(40, 20)
    x, z, *_ = inputs
    x[3, 4], x[5, 6], z[7, 8] = torch.nan, torch.inf, torch.nan
    z[9, 10], z[11, 12] = torch.inf, -torch.inf
    y, dx, dz, *_ = run(gated_norm, inputs, dy)
    expected, dx_expected, *_ = run(by_torch, inputs, dy)
    assert torch.equal(y.isfinite(), expected.isfinite())
    assert torch.equal(y.isnan(), expected.isnan())
    rows = {3, 5, 7, 9, 11}
    for result in (dx, dz):
        bad = (~result.isfinite()).any(dim=1).nonzero().flatten()
        assert set(bad.tolist()) <= rows
    sound = [r for r in range(40) if r not in rows]
    assert_close([dx[sound]], [dx_expected[sound]], tolerance=1e-5)


@pytest.mark.parametrize('value', (0.0, 1e-30, 1e4))
def test_rows_of_equal_numbers(value):
    inputs, dy = draw(20, 24), torch.randn(20, 24)
    inputs[0].fill_(value)
    expected = run(by_torch, in_double(inputs), dy)
    assert_close(run(gated_norm, inputs, dy), expected, tolerance=1e-5)


def test_repeats_bit_by_bit_on_any_number_of_threads():
    assert_repeats(gated_norm, draw(1000, 24), torch.randn(1000, 24))


def test_operators_are_sound():
    inputs = draw(7, 6)
    torch.library.opcheck(
        torch.ops.crackssm.gated_norm.default,
        ([x.requires_grad_() for x in inputs] + [1e-5]),
        test_utils=('test_schema', 'test_faketensor'),
    )


def test_second_derivative_is_refused():
    inputs = [x.requires_grad_() for x in draw(4, 5)]
    (dx,) = torch.autograd.grad(
        gated_norm(*inputs).sum(), inputs[0], create_graph=False
    )
    assert not dx.requires_grad
    with pytest.raises(RuntimeError, match='no second derivative'):
        torch.autograd.grad(
            gated_norm(*inputs).sum(), inputs[0], create_graph=True
        )


@pytest.mark.parametrize(
    ('name', 'value', 'match'),
    (
        ('x', torch.zeros(()), r'x: expected \(..., C\)'),
        ('x', torch.zeros(4, 5).half(), 'x: expected .* float32 or float64'),
        ('z', torch.zeros(4, 6), r'z: expected \(4, 5\)'),
        ('z', torch.zeros(4, 5).double(), 'z: expected torch.float32 on cpu'),
        ('weight', torch.zeros(4), r'weight: expected \(5,\)'),
        ('bias', torch.zeros(5, device='meta'), 'bias: expected .* on cpu'),
    ),
)
def test_wrong_inputs(name, value, match):
    inputs = dict(zip(('x', 'z', 'weight', 'bias'), draw(4, 5), strict=True))
    inputs[name] = value
    with pytest.raises(ValueError, match=match):
        gated_norm(**inputs)


def test_the_call_is_packed_as_the_header_says(repo_root):
    assert module._CALL.format == struct_format(repo_root, 'gate_call')
