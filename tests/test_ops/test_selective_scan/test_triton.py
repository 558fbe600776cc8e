"""The Triton kernels, interpreted on the CPU."""

import numpy as np
import pytest
import torch

from mmseg_crackssm.ops import selective_scan
from mmseg_crackssm.ops.selective_scan import triton_backend
from scan_error import error_bounds
from triton_support import needs_interpreter

pytestmark = needs_interpreter
HALF = (torch.bfloat16, torch.float16)


@pytest.fixture
def cut(monkeypatch):
    """A function that makes tiles small and says when a GPU is full."""

    def set_sizes(steps, channels=16, enough=1024):
        monkeypatch.setattr(triton_backend, 'MAX_STEPS', steps)
        monkeypatch.setattr(triton_backend, 'MAX_CHANNELS', channels)
        monkeypatch.setattr(triton_backend, 'ENOUGH_PROGRAMS', enough)

    return set_sizes


def run(inputs, dy, softplus, backend='triton'):
    """Output and gradients by name; None stands for an absent input."""
    leaves = {
        name: x.detach().requires_grad_()
        for name, x in inputs.items()
        if x is not None
    }
    y = selective_scan(**leaves, delta_softplus=softplus, backend=backend)
    grads = torch.autograd.grad(y, leaves.values(), dy)
    return {'y': y.detach(), **dict(zip(leaves, grads, strict=True))}


def check(inputs, softplus=True):
    """Compare with the float64 reference, each number with its own bound."""
    inputs = {name: x for name, x in inputs.items() if x is not None}
    dy = torch.randn_like(inputs['u'])
    got = run(inputs, dy, softplus)
    exact = {name: x.double() for name, x in inputs.items()}
    expected = run(exact, dy.double(), softplus, backend='reference')
    bounds = error_bounds(
        exact, dy.double(), softplus, precision=torch.float32
    )
    for name, x in got.items():
        bound = bounds[name]
        assert bound.isfinite().all(), name
        if x.dtype in HALF:
            eps = torch.finfo(x.dtype).eps
            bound = bound + eps * expected[name].abs() + eps**2
        wrong = ~((x.double() - expected[name]).abs() <= bound)
        assert not wrong.any(), (name, wrong.nonzero()[:3].tolist())
    return got


# Around the borders of tiles of 8 steps; the number of tiles around that of
# one round of the chain. All tiles at once, and one after the other.
@pytest.mark.parametrize('enough', (1, 10**6), ids=('in order', 'at once'))
@pytest.mark.parametrize('length', (1, 7, 8, 9, 16, 29, 127, 129, 150))
def test_borders_of_tiles(make_inputs, cut, length, enough):
    cut(steps=8, enough=enough)
    check(make_inputs(batch=1, dim=2, length=length, d_state=2, groups=1))


@pytest.mark.parametrize('groups', (None, 1, 2))
@pytest.mark.parametrize('d_state', (1, 3, 16))
def test_groups_and_states(make_inputs, cut, groups, d_state):
    cut(steps=16)
    check(make_inputs(dim=6, length=17, d_state=d_state, groups=groups))


# 5 blocks of 2 channels per group, the last one half empty: in one program,
# in programs of 2, 2 and 1 blocks, each in its own.
@pytest.mark.parametrize(('enough', 'parts'), ((1, 1), (24, 3), (10**6, 5)))
def test_blocks_of_channels(make_inputs, cut, monkeypatch, enough, parts):
    cut(steps=16, channels=2, enough=enough)
    seen = []
    sums = torch.Tensor.sum
    monkeypatch.setattr(
        torch.Tensor,
        'sum',
        lambda x, *a: (seen.append(x.shape), sums(x, *a))[1],
    )
    check(make_inputs(batch=2, dim=18, length=18, d_state=2, groups=2))
    assert (2, 2, parts, 2, 18) in seen


@pytest.mark.parametrize('softplus', (False, True))
@pytest.mark.parametrize(
    'absent', (('D',), ('delta_bias',), ('D', 'delta_bias'))
)
def test_optional_inputs(make_inputs, cut, absent, softplus):
    cut(steps=16)
    inputs = make_inputs()
    check({**inputs, **dict.fromkeys(absent)}, softplus=softplus)


@pytest.mark.parametrize('dtype', HALF)
def test_half_inputs_are_read_as_they_are(make_inputs, monkeypatch, dtype):
    inputs = make_inputs(length=200, dtype=dtype)
    # The parameters of a model under autocast stay in float32.
    for name in ('A', 'D', 'delta_bias'):
        inputs[name] = inputs[name].float()
    seen = []
    for name in ('forward', 'backward'):
        function = getattr(triton_backend, name)

        def spy(*args, function=function):
            seen.extend(x.dtype for x in args if isinstance(x, torch.Tensor))
            return function(*args)

        monkeypatch.setattr(triton_backend, name, spy)
    got = check(inputs)
    assert seen.count(dtype) == 9
    assert {name: x.dtype for name, x in got.items() if name != 'y'} == {
        name: x.dtype for name, x in inputs.items()
    }
    assert got['y'].dtype == dtype


def test_types_may_differ(make_inputs):
    inputs = make_inputs()
    for name, dtype in (
        ('u', torch.bfloat16),
        ('B', torch.float16),
        ('A', torch.bfloat16),
        ('delta_bias', torch.float16),
    ):
        inputs[name] = inputs[name].to(dtype)
    check(inputs)


# Rows aligned by 16, by 4 and not at all.
@pytest.mark.parametrize('length', (32, 36, 37))
def test_strides_do_not_matter(make_inputs, length):
    inputs = make_inputs(length=length, d_state=2)
    dy = torch.randn_like(inputs['u'])
    expected = run(inputs, dy, softplus=True)
    wide = {
        name: torch.full(
            (2 * x.shape[0], *x.shape[1:-1], 2 * x.shape[-1]), 9.0
        )
        for name, x in inputs.items()
    }
    layouts = {
        'rows apart': lambda x, w: w[::2, ..., : x.shape[-1]].copy_(x),
        'steps apart': lambda x, w: w[::2, ..., ::2].copy_(x),
        'reversed': lambda x, w: x.mT.contiguous().mT,
    }
    for name, lay_out in layouts.items():
        strided = {
            key: lay_out(x, wide[key].clone()) if x.dim() > 1 else x
            for key, x in inputs.items()
        }
        assert not strided['u'].is_contiguous()
        strided_dy = lay_out(dy, wide['u'].clone())
        got = run(strided, strided_dy, softplus=True)
        for key, x in got.items():
            assert torch.equal(x, expected[key]), (name, key)
            assert x.is_contiguous(), (name, key)


def test_results_repeat_bit_by_bit(make_inputs, cut):
    cut(steps=16, channels=2, enough=12)
    inputs = make_inputs(batch=1, dim=8, length=33, d_state=2)
    dy = torch.randn_like(inputs['u'])
    first, second = (run(inputs, dy, softplus=True) for _ in range(2))
    for name, x in first.items():
        assert torch.equal(x, second[name]), name


@pytest.mark.parametrize('value', (100.0, -100.0))
@pytest.mark.parametrize('softplus', (False, True))
def test_extreme_steps(make_inputs, cut, value, softplus):
    cut(steps=8)
    inputs = make_inputs(batch=1, length=20, d_state=2)
    if value < 0 and not softplus:
        # Or the states grow out of range.
        inputs['A'] = inputs['A'].abs()
    inputs['delta'][:, 1, ::5] = value
    check(inputs, softplus=softplus)


def test_small_steps_keep_their_digits(make_inputs):
    inputs = make_inputs(batch=1, length=20, d_state=2)
    inputs['delta'] -= 9
    check(inputs)


def assert_finite_alike(inputs, dy, softplus=True):
    exact = {name: x.double() for name, x in inputs.items()}
    expected = run(exact, dy.double(), softplus, backend='reference')
    for name, x in run(inputs, dy, softplus).items():
        finite = expected[name].isfinite()
        assert torch.equal(x.isfinite(), finite), name
        torch.testing.assert_close(
            x[finite].double(), expected[name][finite], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize('enough', (1, 10**6))
@pytest.mark.parametrize(
    ('name', 'value', 'where'),
    (
        ('u', torch.inf, (0, 0, 13)),
        ('u', torch.nan, (0, 0, -1)),
        ('delta', torch.nan, (0, 1, 13)),
        ('delta', torch.inf, (0, 1, 16)),
        ('delta', -torch.inf, (0, 1, 7)),
        ('A', -torch.inf, (0, 0)),
        ('A', torch.nan, (0, 0)),
        ('B', torch.inf, (0, 1, 0, 5)),
        ('C', torch.nan, (0, 0, 1, 20)),
        ('dy', torch.inf, (0, 2, 18)),
    ),
)
def test_what_is_not_finite_spreads_as_in_the_reference(
    make_inputs, cut, name, value, where, enough
):
    # Of 3 tiles the last has 5 steps.
    cut(steps=8, enough=enough)
    inputs = make_inputs(batch=1, length=21, d_state=2)
    inputs['dy'] = torch.randn_like(inputs['u'])
    inputs[name][where] = value
    assert_finite_alike(inputs, inputs.pop('dy'))


def test_nan_reaches_gradients_that_are_zero(make_inputs, cut):
    cut(steps=8)
    inputs = make_inputs(batch=1, length=21, d_state=2)
    inputs['delta'][0, 1, 13] = torch.nan
    dy = torch.zeros_like(inputs['u'])
    assert_finite_alike(inputs, dy)


@pytest.mark.parametrize('enough', (1, 10**6))
def test_growing_states_do_not_poison_idle_channels(make_inputs, cut, enough):
    # A > 0: over a tile the decay overflows, yet 0 stays 0.
    cut(steps=16, enough=enough)
    inputs = make_inputs(batch=1, length=64)
    inputs['A'] = torch.full_like(inputs['A'], 10.0)
    inputs['u'] = torch.zeros_like(inputs['u'])
    dy = torch.zeros_like(inputs['u'])
    for name, x in run(inputs, dy, softplus=True).items():
        assert not x.any(), name


@pytest.mark.parametrize('requires_grad', (False, True))
def test_opcheck(make_inputs, requires_grad):
    operators = torch.ops.crackssm
    inputs = make_inputs(requires_grad=requires_grad)
    arguments = (*inputs.values(), True, 'triton')
    torch.library.opcheck(operators.selective_scan, arguments)
    if not requires_grad:
        inputs['u'] = inputs['u'].bfloat16()
        arguments = (*inputs.values(), True, 'triton')
        torch.library.opcheck(operators.selective_scan_save_states, arguments)
        y, states = operators.selective_scan_save_states(*arguments)
        torch.library.opcheck(
            operators.selective_scan_backward,
            (torch.ones_like(y), *arguments[:-1], states, 'triton'),
        )


def test_states_have_the_announced_shape(make_inputs, cut):
    cut(steps=16, enough=1)
    inputs = make_inputs(length=40)
    _, states = triton_backend.forward(*inputs.values(), True, True)
    shape = triton_backend.states_shape(
        batch=2, dim=4, length=40, d_state=3, groups=2, device_type='cuda'
    )
    assert states.shape == shape == (2, 3, 4, 3)
    _, states = triton_backend.forward(*inputs.values(), True, False)
    assert states.numel() == 0


def test_auto_on_the_cpu_leaves_the_interpreter_alone(
    make_inputs, monkeypatch
):
    monkeypatch.setattr(triton_backend, 'forward', None)
    selective_scan(**make_inputs())
    with pytest.raises(TypeError):
        selective_scan(**make_inputs(), backend='triton')


def test_doubling_agrees_with_the_interpreter(monkeypatch, make_inputs, cut):
    """What the tests put in the place of the interpreter's own scan."""
    cut(steps=8)
    inputs = make_inputs(batch=1, length=13, d_state=2)
    dy = torch.randn_like(inputs['u'])
    quick = run(inputs, dy, softplus=True)
    monkeypatch.undo()
    cut(steps=8)
    with np.errstate(all='ignore'):
        slow = run(inputs, dy, softplus=True)
    for name, x in quick.items():
        torch.testing.assert_close(x, slow[name], msg=name)
