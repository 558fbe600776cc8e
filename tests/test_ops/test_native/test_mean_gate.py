"""The mean gate in one pass against torch's convolutions."""

import pytest
import torch
import torch.nn.functional as F
from native_scan import needs_kernel, struct_format
from operator_checks import assert_close, assert_repeats, in_double, run
from torch.utils.flop_counter import FlopCounterMode

from mmseg_crackssm.ops import mean_gate
from mmseg_crackssm.ops.native import mean_gate as module

pytestmark = needs_kernel


def by_torch(x, weight, bias, out_weight, out_bias):
    groups, hidden, channels = weight.shape
    kernel = weight.reshape(groups * hidden, channels, 1, 1)
    x = F.relu(F.conv2d(x, kernel, bias.flatten(), groups=groups))
    kernel = out_weight.reshape(groups, hidden, 1, 1)
    x = torch.sigmoid(F.conv2d(x, kernel, out_bias, groups=groups))
    return x.mean(dim=1, keepdim=True)


def draw(groups, hidden, channels, *size, batch=2, dtype=torch.float32):
    """The five inputs."""
    generator = torch.Generator().manual_seed(0)
    shapes = (
        (batch, groups * channels, *size),
        (groups, hidden, channels),
        (groups, hidden),
        (groups, hidden),
        (groups,),
    )
    return [
        torch.randn(shape, generator=generator, dtype=dtype)
        for shape in shapes
    ]


@pytest.mark.parametrize('size', ((1, 1), (5, 7), (4, 8), (30, 40)))
@pytest.mark.parametrize('sizes', ((3, 8, 3), (1, 1, 1), (4, 5, 2)))
def test_output_and_gradients(instruction_set, sizes, size):
    inputs, dy = draw(*sizes, *size), torch.randn(2, 1, *size)
    expected = run(by_torch, in_double(inputs), dy)
    assert_close(run(mean_gate, inputs, dy), expected, tolerance=5e-6)


def test_float64():
    inputs = draw(3, 8, 3, 9, 9, dtype=torch.float64)
    dy = torch.randn(2, 1, 9, 9)
    expected = run(by_torch, inputs, dy)
    assert_close(run(mean_gate, inputs, dy), expected, tolerance=1e-12)


def test_gradcheck():
    inputs = draw(2, 3, 2, 3, 4, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(mean_gate, inputs)


def test_images_that_need_no_gradient():
    x, *weights = draw(3, 8, 3, 20, 30)
    weights = [tensor.requires_grad_() for tensor in weights]
    dy = torch.randn(2, 1, 20, 30)
    grads = torch.autograd.grad(mean_gate(x, *weights), weights, dy)
    expected = run(mean_gate, [x, *weights], dy)
    for gradient, value in zip(grads, expected[2:], strict=True):
        assert torch.equal(gradient, value)


@pytest.mark.parametrize('form', ('channels last', 'gaps', 'shared'))
def test_any_strides(form):
    x, *weights = draw(3, 8, 3, 6, 5)
    dy = torch.randn(2, 1, 6, 5)
    if form == 'channels last':
        x = x.contiguous(memory_format=torch.channels_last)
    elif form == 'gaps':
        x = torch.cat((x, x), dim=3)[..., 5:]
        weights = [torch.stack((w, w), dim=-1)[..., 0] for w in weights]
    else:
        x, dy = x[:1].expand(x.shape), dy[..., :1].expand(dy.shape)
    inputs = [x, *weights]
    expected = run(by_torch, in_double(inputs), dy)
    assert_close(run(mean_gate, inputs, dy), expected, tolerance=5e-6)


@pytest.mark.parametrize('batch', (0, 2))
def test_empty(batch):
    inputs = draw(3, 8, 3, 4, 0, batch=batch)
    y, dx, *others = run(mean_gate, inputs, torch.ones(batch, 1, 4, 0))
    assert y.shape == (batch, 1, 4, 0) and dx.shape == inputs[0].shape
    for gradient in others:
        assert not gradient.any()


def test_what_is_not_finite_stays_at_its_pixel(instruction_set):
    inputs = draw(3, 8, 3, 6, 6)
    x = inputs[0]
    x[0, 4, 2, 3], x[1, 8, 5, 5] = torch.nan, torch.inf
    y, expected = mean_gate(*inputs), by_torch(*inputs)
    assert torch.equal(y.isnan(), expected.isnan())
    assert_close([y.nan_to_num()], [expected.nan_to_num()], tolerance=1e-6)


def test_repeats_bit_by_bit_on_any_number_of_threads():
    inputs = draw(3, 8, 3, 60, 70)
    assert_repeats(mean_gate, inputs, torch.randn(2, 1, 60, 70))


def test_operators_are_sound():
    inputs = [x.requires_grad_() for x in draw(2, 3, 2, 3, 4)]
    torch.library.opcheck(
        torch.ops.crackssm.mean_gate.default,
        tuple(inputs),
        test_utils=('test_schema', 'test_faketensor'),
    )


def test_counts_what_the_convolutions_count():
    # Torch's formula for the gradients of grouped convolutions counts more.
    inputs = [x.requires_grad_() for x in draw(1, 8, 3, 6, 6)]
    totals = []
    for function in (mean_gate, by_torch):
        with FlopCounterMode(display=False) as counter:
            function(*inputs).sum().backward()
        totals.append(counter.get_total_flops())
    assert totals[0] == totals[1]


def test_counts_groups():
    inputs = draw(3, 8, 3, 6, 6)
    totals = []
    for function in (mean_gate, by_torch):
        with FlopCounterMode(display=False) as counter:
            function(*inputs)
        totals.append(counter.get_total_flops())
    assert totals[0] == totals[1] == 2 * 2 * 36 * 24 * 4


def test_second_derivative_is_refused():
    inputs = [x.requires_grad_() for x in draw(2, 3, 2, 3, 4)]
    with pytest.raises(RuntimeError, match='no second derivative'):
        torch.autograd.grad(
            mean_gate(*inputs).sum(), inputs[0], create_graph=True
        )


@pytest.mark.parametrize(
    ('name', 'value', 'match'),
    (
        ('x', torch.zeros(2, 8, 4, 5), r'x: expected \(B, 6, H, W\)'),
        ('x', torch.zeros(2, 6, 4), r'x: expected \(B, 6, H, W\)'),
        ('x', torch.zeros(2, 6, 4, 5).half(), 'float32 or float64'),
        ('weight', torch.zeros(3, 2), r'weight: expected \(groups, hidden'),
        ('weight', torch.zeros(3, 0, 2), 'none of them 0'),
        ('weight', torch.zeros(3, 4, 2).double(), 'weight: .*torch.float32'),
        ('bias', torch.zeros(3, 5), r'bias: expected \(3, 4\)'),
        ('out_weight', torch.zeros(3), r'out_weight: expected \(3, 4\)'),
        ('out_bias', torch.zeros(4), r'out_bias: expected \(3,\)'),
        ('out_bias', torch.zeros(3, device='meta'), 'out_bias: .* on cpu'),
    ),
)
def test_wrong_inputs(name, value, match):
    names = ('x', 'weight', 'bias', 'out_weight', 'out_bias')
    inputs = dict(zip(names, draw(3, 4, 2, 4, 5), strict=True))
    inputs[name] = value
    with pytest.raises(ValueError, match=match):
        mean_gate(**inputs)


def test_the_call_is_packed_as_the_header_says(repo_root):
    assert module._CALL.format == struct_format(repo_root, 'mean_gate_call')
