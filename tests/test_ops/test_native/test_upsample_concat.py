"""A decoder level's input in one pass against torch's four operators."""

import pytest
import torch
import torch.nn.functional as F
from native_scan import needs_kernel, struct_format
from operator_checks import assert_close, assert_repeats, in_double, run

from mmseg_crackssm.ops import upsample_concat
from mmseg_crackssm.ops.native import upsample_concat as module

pytestmark = needs_kernel

SIZES = (
    ((4, 5), (8, 10)),
    ((3, 7), (7, 13)),
    ((6, 6), (6, 6)),
    ((9, 8), (4, 3)),
    ((1, 1), (5, 2)),
    ((5, 1), (1, 9)),
    ((2, 3), (17, 40)),
)


def by_torch(x, skip, gate, size):
    x = F.interpolate(x, size=size, mode='bilinear', align_corners=False)
    if skip is not None:
        x = torch.cat((x, skip), dim=1)
    return x if gate is None else x * (1 + gate)


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


def draw(channels, skip_channels, sizes, batch=2, dtype=torch.float32):
    """x, skip and gate, and the size."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return channels_last(
            torch.randn(*shape, generator=generator, dtype=dtype)
        )

    size, out_size = sizes
    x = normal(batch, channels, *size)
    skip = normal(batch, skip_channels, *out_size) if skip_channels else None
    return [x, skip, normal(batch, 1, *out_size)], out_size


def both(inputs, size, dy=None):
    """Results of the operator in the inputs' type, and torch's in double."""
    channels = sum(x.shape[1] for x in inputs[:2] if x is not None)
    if dy is None:
        dy = torch.randn(len(inputs[0]), channels, *size)
    results = run(lambda *x: upsample_concat(*x, size), inputs, dy)
    expected = run(lambda *x: by_torch(*x, size), in_double(inputs), dy)
    return results, expected


@pytest.mark.parametrize('sizes', SIZES)
@pytest.mark.parametrize('channels', ((1, 0), (16, 4), (20, 33), (40, 0)))
def test_output_and_gradients(instruction_set, channels, sizes):
    assert_close(*both(*draw(*channels, sizes)), tolerance=1e-5)


@pytest.mark.parametrize('sizes', SIZES)
def test_float64(sizes):
    inputs, size = draw(5, 3, sizes, dtype=torch.float64)
    assert_close(*both(inputs, size), tolerance=1e-12)


@pytest.mark.parametrize('has_skip', (False, True))
@pytest.mark.parametrize('has_gate', (False, True))
def test_parts_may_be_absent(has_skip, has_gate):
    (x, skip, gate), size = draw(6, 5, ((4, 3), (8, 6)))
    inputs = [x, skip if has_skip else None, gate if has_gate else None]
    assert_close(*both(inputs, size), tolerance=1e-6)


def test_gradcheck():
    inputs, size = draw(2, 3, ((2, 3), (5, 4)), dtype=torch.float64)
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(
        lambda *x: upsample_concat(*x, size), inputs
    )


@pytest.mark.parametrize('name', ('x', 'skip', 'gate', 'dy'))
@pytest.mark.parametrize('form', ('contiguous', 'gaps', 'shared'))
def test_any_strides(name, form):
    inputs, size = draw(6, 5, ((4, 3), (8, 6)))
    tensors = [*inputs, channels_last(torch.randn(2, 11, *size))]
    index = ('x', 'skip', 'gate', 'dy').index(name)
    x = tensors[index]
    if form == 'contiguous':
        x = x.contiguous()
    elif form == 'gaps':
        x = torch.cat((x, x), dim=3)[..., x.shape[3] :]
    else:
        x = x[:1, :, :1].expand(x.shape)
    tensors[index] = x
    *inputs, dy = tensors
    results, expected = both(inputs, size, dy)
    assert_close(results, expected, tolerance=1e-5)
    assert results[0].is_contiguous(memory_format=torch.channels_last)


def test_no_images():
    inputs, size = draw(3, 2, ((4, 5), (8, 10)), batch=0)
    for result in both(inputs, size)[0]:
        assert not result.numel()


def test_what_is_not_finite_stays_where_it_is_read(instruction_set):
    inputs, size = draw(20, 4, ((6, 6), (12, 12)))
    x, skip, gate = inputs
    x[0, 3, 2, 2], skip[0, 1, 9, 9] = torch.nan, torch.inf
    x[1, 5, 1:3, 1:3] = torch.inf
    gate[1, 0, 4, 4] = torch.nan
    dy = torch.ones(2, 24, *size)
    results = run(lambda *t: upsample_concat(*t, size), inputs, dy)
    expected = run(lambda *t: by_torch(*t, size), inputs, dy)
    for result, value in zip(results, expected, strict=True):
        assert torch.equal(result.isfinite(), value.isfinite())


def test_repeats_bit_by_bit_on_any_number_of_threads():
    inputs, size = draw(24, 8, ((20, 30), (40, 60)))
    dy = torch.randn(2, 32, *size)
    assert_repeats(lambda *x: upsample_concat(*x, size), inputs, dy)


def test_operators_are_sound():
    inputs, size = draw(5, 3, ((2, 3), (4, 6)))
    for arguments in (inputs, [inputs[0], None, None]):
        torch.library.opcheck(
            torch.ops.crackssm.upsample_concat.default,
            (
                *(
                    None if x is None else x.requires_grad_()
                    for x in arguments
                ),
                list(size),
            ),
            test_utils=('test_schema', 'test_faketensor'),
        )


def test_second_derivative_is_refused():
    inputs, size = draw(2, 3, ((2, 3), (4, 6)))
    x = inputs[0].requires_grad_()
    y = upsample_concat(*inputs, size).square().sum()
    with pytest.raises(RuntimeError, match='no second derivative'):
        torch.autograd.grad(y, x, create_graph=True)


@pytest.mark.parametrize(
    ('name', 'value', 'match'),
    (
        ('x', torch.zeros(2, 3, 4), r'x: expected \(B, C, h, w\)'),
        ('x', torch.zeros(2, 0, 4, 5), 'none of C, h and w 0'),
        ('x', torch.zeros(2, 6, 4, 3).half(), 'float32 or float64'),
        ('skip', torch.zeros(2, 5, 8, 5), r'skip: expected \(2, 5, 8, 6\)'),
        ('skip', torch.zeros(2, 5, 8, 6).double(), 'skip: expected .*float32'),
        ('gate', torch.zeros(2, 2, 8, 6), r'gate: expected \(2, 1, 8, 6\)'),
        ('gate', torch.zeros(2, 1, 8, 6, device='meta'), 'gate: .* on cpu'),
        ('size', (8, 0), 'size: expected two positive sides'),
        ('size', (8,), 'size: expected two positive sides'),
    ),
)
def test_wrong_inputs(name, value, match):
    inputs, size = draw(6, 5, ((4, 3), (8, 6)))
    arguments = dict(zip(('x', 'skip', 'gate'), inputs, strict=True))
    arguments['size'] = size
    arguments[name] = value
    with pytest.raises(ValueError, match=match):
        upsample_concat(**arguments)


def test_the_call_is_packed_as_the_header_says(repo_root):
    assert module._CALL.format == struct_format(repo_root, 'merge_call')
