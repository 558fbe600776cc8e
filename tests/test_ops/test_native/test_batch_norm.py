"""Batch normalisation and ReLU in the kernel against torch's two."""

import pytest
import torch
import torch.nn.functional as F
from native_scan import needs_kernel, struct_format
from operator_checks import assert_close, assert_repeats, in_double, run

from mmseg_crackssm.ops import batch_norm_relu
from mmseg_crackssm.ops.native import batch_norm as module

pytestmark = needs_kernel


def by_torch(x, weight, bias, eps=1e-5):
    return F.relu(F.batch_norm(x, None, None, weight, bias, True, eps=eps))


def by_kernel(*inputs):
    return batch_norm_relu(*inputs)[0]


def draw(*shape, dtype=torch.float32):
    """x, weight, bias; x far from zero."""
    generator = torch.Generator().manual_seed(0)
    channels = shape[1:2]
    x, weight, bias = (
        torch.randn(s, generator=generator, dtype=dtype)
        for s in (shape, channels, channels)
    )
    x = (3 * x + 5).contiguous(memory_format=torch.channels_last)
    return [x, weight, bias]


def away_from_the_kink(inputs, margin=1e-4):
    """Gradient of the output, 0 where roundings decide what ReLU does."""
    x, weight, bias = in_double(inputs)
    y = F.batch_norm(x, None, None, weight, bias, True)
    return torch.randn(x.shape) * (y.abs() > margin)


@pytest.mark.parametrize('channels', (1, 3, 16, 17, 40, 72))
@pytest.mark.parametrize('size', ((1, 2, 1), (2, 5, 7), (1, 9, 40)))
def test_output_and_gradients(instruction_set, channels, size):
    batch, *sides = size
    inputs = draw(batch, channels, *sides)
    dy = away_from_the_kink(inputs)
    expected = run(by_torch, in_double(inputs), dy)
    if size == (1, 2, 1):
        # Of two numbers the gradient is nothing but roundings.
        results = run(by_kernel, inputs, dy)
        assert_close(results[:1], expected[:1], tolerance=1e-5)
    else:
        assert_close(run(by_kernel, inputs, dy), expected, tolerance=1e-5)


def test_many_tasks(instruction_set):
    inputs = draw(2, 20, 70, 90)
    dy = away_from_the_kink(inputs)
    expected = run(by_torch, in_double(inputs), dy)
    assert_close(run(by_kernel, inputs, dy), expected, tolerance=2e-6)


def test_statistics():
    x, weight, bias = draw(2, 20, 70, 90)
    _, mean, variance = batch_norm_relu(x, weight, bias)
    pixels = x.double().transpose(0, 1).flatten(1)
    expected = [pixels.mean(1), pixels.var(1, unbiased=False)]
    assert_close([mean, variance], expected, tolerance=1e-6)
    assert not mean.requires_grad


def test_float64():
    inputs = draw(2, 5, 6, 7, dtype=torch.float64)
    dy = away_from_the_kink(inputs)
    expected = run(by_torch, inputs, dy)
    assert_close(run(by_kernel, inputs, dy), expected, tolerance=1e-12)


def test_gradcheck():
    inputs = [x.requires_grad_() for x in draw(2, 3, 4, 5, dtype=torch.double)]
    assert torch.autograd.gradcheck(by_kernel, inputs)


@pytest.mark.parametrize('name', ('x', 'dy'))
@pytest.mark.parametrize('form', ('contiguous', 'gaps', 'shared'))
def test_any_strides(name, form):
    x, weight, bias = draw(2, 6, 5, 4)
    dy = away_from_the_kink([x, weight, bias])
    tensor = x if name == 'x' else dy
    if form == 'contiguous':
        tensor = tensor.contiguous()
    elif form == 'gaps':
        tensor = torch.cat((tensor, tensor), dim=3)[..., 4:]
    elif name == 'dy':
        tensor = tensor[:, :1].expand(2, 6, 5, 4)
    if name == 'x':
        x = tensor
    else:
        dy = tensor
    inputs = [x, weight, bias]
    results = run(by_kernel, inputs, dy)
    assert_close(results, run(by_torch, in_double(inputs), dy), tolerance=1e-5)
    assert results[0].is_contiguous(memory_format=torch.channels_last)


def test_nan_stays_in_its_channel(instruction_set):
    inputs = draw(2, 20, 5, 4)
    dy = away_from_the_kink(inputs)
    expected = run(by_torch, in_double(inputs), dy)
    inputs[0][1, 7, 2, 2] = torch.nan
    results = run(by_kernel, inputs, dy)
    sound = [c for c in range(20) if c != 7]
    y, dx, *others = results
    assert y[:, 7].isnan().all() and dx[:, 7].isnan().all()
    assert_close(
        [y[:, sound], dx[:, sound], *(x[sound] for x in others)],
        [
            *(x[:, sound] for x in expected[:2]),
            *(x[sound] for x in expected[2:]),
        ],
        tolerance=1e-5,
    )


@pytest.mark.parametrize('value', (0.0, 1e-30, 1e4))
def test_channels_of_equal_numbers(value):
    inputs = draw(2, 6, 5, 4)
    inputs[0].fill_(value)
    y = by_kernel(*inputs)
    assert_close([y], [by_torch(*in_double(inputs))], tolerance=1e-5)


def test_repeats_bit_by_bit_on_any_number_of_threads():
    inputs = draw(2, 24, 60, 80)
    assert_repeats(by_kernel, inputs, torch.randn(2, 24, 60, 80))


def test_operators_are_sound():
    torch.library.opcheck(
        torch.ops.crackssm.batch_norm_relu.default,
        (*(x.requires_grad_() for x in draw(2, 3, 4, 5)), 1e-5),
        test_utils=('test_schema', 'test_faketensor'),
    )


def test_second_derivative_is_refused():
    inputs = [x.requires_grad_() for x in draw(2, 3, 4, 5)]
    with pytest.raises(RuntimeError, match='no second derivative'):
        torch.autograd.grad(
            by_kernel(*inputs).sum(), inputs[0], create_graph=True
        )


@pytest.mark.parametrize(
    ('name', 'value', 'match'),
    (
        ('x', torch.zeros(2, 3, 4), r'x: expected \(B, C, H, W\)'),
        ('x', torch.zeros(2, 3, 4, 5).half(), 'float32 or float64'),
        ('x', torch.zeros(1, 3, 1, 1), 'two or more numbers per channel'),
        ('x', torch.zeros(0, 3, 4, 5), 'two or more numbers per channel'),
        ('x', torch.zeros(2, 0, 4, 5), 'two or more numbers per channel'),
        ('weight', torch.zeros(4), r'weight: expected \(3,\)'),
        ('weight', torch.zeros(3).double(), 'weight: expected torch.float32'),
        ('bias', torch.zeros(3, device='meta'), 'bias: expected .* on cpu'),
    ),
)
def test_wrong_inputs(name, value, match):
    inputs = dict(zip(('x', 'weight', 'bias'), draw(2, 3, 4, 5), strict=True))
    inputs[name] = value
    with pytest.raises(ValueError, match=match):
        batch_norm_relu(**inputs)


def test_the_call_is_packed_as_the_header_says(repo_root):
    assert module._CALL.format == struct_format(repo_root, 'batch_norm_call')
