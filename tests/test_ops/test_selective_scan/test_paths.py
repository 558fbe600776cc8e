"""S6 along paths against gathering, the scan and scattering."""

import pytest
import torch
import torch.nn.functional as F
from native_scan import needs_kernel, struct_format
from torch.utils.flop_counter import FlopCounterMode

from mmseg_crackssm.ops import (
    gather_tokens,
    scatter_tokens,
    selective_scan,
    selective_scan_paths,
)
from mmseg_crackssm.ops.selective_scan import paths as module

pytestmark = needs_kernel
NAMES = ('tokens', 'projected', 'dt_weight', 'A', 'D', 'dt_bias', 'paths')


def draw(
    batch=2, length=150, dim=20, d_state=3, rank=2, n_paths=3, shared=True
):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    def path():
        return torch.randperm(length, generator=generator)

    sets = [
        torch.stack([path() for _ in range(n_paths)])
        for _ in range(1 if shared else batch)
    ]
    return dict(
        tokens=normal(batch, length, dim),
        projected=normal(batch, length, n_paths, rank + 2 * d_state),
        dt_weight=normal(n_paths, dim, rank),
        A=-torch.exp(0.5 * normal(n_paths * dim, d_state)),
        D=normal(n_paths * dim),
        dt_bias=normal(n_paths * dim) - 1,
        paths=sets[0] if shared else torch.stack(sets),
    )


def by_sequences(tokens, projected, dt_weight, A, D, dt_bias, paths, merge):
    """The same out of sequences, in float64, by the plain loop."""
    tokens, projected, dt_weight, A, D, dt_bias = (
        x.double() for x in (tokens, projected, dt_weight, A, D, dt_bias)
    )
    n_paths, dim, rank = dt_weight.shape
    xs = gather_tokens(tokens.transpose(1, 2).unsqueeze(1), paths)
    rows = gather_tokens(projected.permute(0, 2, 3, 1), paths)
    dts, B, C = rows.split((rank, A.shape[1], A.shape[1]), dim=2)
    ys = selective_scan(
        xs.flatten(1, 2),
        torch.matmul(dt_weight, dts).flatten(1, 2),
        A,
        B,
        C,
        D,
        dt_bias,
        delta_softplus=True,
        backend='reference',
    )
    ys = scatter_tokens(ys.unflatten(1, (n_paths, dim)), paths)
    return ys.sum(1).transpose(1, 2) if merge else ys.permute(0, 3, 1, 2)


def run(inputs, merge, function=selective_scan_paths, dtype=None):
    """Output and gradients by name."""
    inputs = {
        name: x.to(dtype or x.dtype).detach().requires_grad_()
        if x.is_floating_point()
        else x
        for name, x in inputs.items()
    }
    y = function(**inputs, merge=merge)
    generator = torch.Generator().manual_seed(7)
    y.backward(torch.randn(y.shape, generator=generator).to(y.dtype))
    grads = {name: x.grad for name, x in inputs.items() if x.grad is not None}
    return {'y': y.detach(), **grads}


def assert_all_close(results, expected, tolerance):
    assert results.keys() == expected.keys()
    for name, x in expected.items():
        assert results[name].shape == x.shape, name
        if x.numel():
            scale = x.abs().max().clamp_min(1e-30)
            error = (results[name].double() - x).abs().max() / scale
            assert error < tolerance, (name, error.item())


@pytest.mark.parametrize('merge', (True, False))
@pytest.mark.parametrize(
    'shape',
    [
        dict(),
        dict(shared=False),
        dict(length=1),
        dict(length=128, dim=16),
        dict(length=257, dim=33, d_state=16, batch=1),
        dict(dim=64, d_state=17, rank=5, n_paths=1),
        dict(d_state=1, rank=1, dim=7),
        dict(length=300, rank=9),
        dict(rank=0),
    ],
    ids=str,
)
def test_like_sequences(instruction_set, shape, merge):
    inputs = draw(**shape)
    expected = run(inputs, merge, by_sequences, torch.float64)
    assert_all_close(run(inputs, merge), expected, 3e-6)
    # Without states for a backward.
    y = selective_scan_paths(**inputs, merge=merge)
    assert_all_close({'y': y}, {'y': expected['y']}, 3e-6)


@pytest.mark.parametrize('merge', (True, False))
def test_double(merge):
    inputs = draw(d_state=5)
    expected = run(inputs, merge, by_sequences, torch.float64)
    got = run(inputs, merge, dtype=torch.float64)
    assert_all_close(got, expected, 1e-12)


@pytest.mark.parametrize('merge', (True, False))
def test_gradcheck(merge):
    inputs = draw(length=9, dim=4, d_state=2, n_paths=2)
    doubles = [
        x.double().requires_grad_() if x.is_floating_point() else x
        for x in inputs.values()
    ]
    assert torch.autograd.gradcheck(
        lambda *x: selective_scan_paths(*x, merge=merge), doubles
    )


@pytest.mark.parametrize('merge', (True, False))
def test_long_sums_keep_their_digits(instruction_set, merge):
    inputs = draw(length=4096, dim=16, d_state=4, batch=1, n_paths=2)
    inputs['projected'] *= 0.3
    inputs['dt_bias'] -= 4
    expected = run(inputs, merge, dtype=torch.float64)
    assert_all_close(run(inputs, merge), expected, 2e-6)


@pytest.mark.parametrize('merge', (True, False))
def test_runs_repeat_bit_by_bit(threads, merge):
    inputs = draw(dim=100)
    threads(1)
    expected = run(inputs, merge)
    for count in (1, 2, 3):
        threads(count)
        for name, x in run(inputs, merge).items():
            assert torch.equal(x, expected[name]), (count, name)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('projected', 100.0),
        ('projected', -100.0),
        ('dt_bias', 1e30),
        ('A', -1e30),
        ('tokens', torch.nan),
        ('projected', torch.inf),
    ],
)
def test_extreme_values(instruction_set, name, value):
    inputs = draw(length=300, d_state=8)
    inputs[name].view(-1)[::101] = value
    y = selective_scan_paths(**inputs, merge=False)
    expected = by_sequences(**inputs, merge=False)
    # What overflows float32 alone is not compared.
    good = expected.isfinite() & (expected.abs() < 1e30)
    assert good.any()
    assert not y[good].isnan().any()
    assert y[expected.isnan()].isfinite().sum() == 0
    torch.testing.assert_close(
        y[good].double(), expected[good], rtol=1e-4, atol=1e-4
    )


def test_inputs_in_any_memory_order():
    inputs = draw()
    expected = selective_scan_paths(**inputs, merge=True)
    for name in ('tokens', 'projected', 'dt_weight', 'A', 'paths'):
        x = inputs[name]
        inputs[name] = x.transpose(0, -1).contiguous().transpose(0, -1)
    assert torch.equal(selective_scan_paths(**inputs, merge=True), expected)


def test_empty_batch():
    inputs = draw()
    for name in ('tokens', 'projected'):
        inputs[name] = inputs[name][:0]
    results = run(inputs, merge=False)
    assert results['y'].shape == (0, 150, 3, 20)
    assert not results['A'].any() and results['A'].shape == (60, 3)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(tokens=torch.ones(2, 3)), r'tokens \(B, L, d\)'),
        (dict(projected=torch.ones(2, 150, 3, 7)), r'projected: .*3, 8\)'),
        (dict(D=torch.ones(61)), r'D: expected \(60,\)'),
        (dict(A=torch.ones(60, 3).double()), 'A: expected torch.float32'),
        (dict(paths=torch.zeros(3, 149).long()), 'paths: expected int64'),
        (dict(paths=torch.zeros(3, 150)), 'paths: expected int64'),
        (dict(paths=torch.full((3, 150), 150)), '0 to 149, got 150 to 150'),
        (dict(paths=torch.full((3, 150), -1)), '0 to 149, got -1 to -1'),
    ],
    ids=str,
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        selective_scan_paths(**{**draw(), **change}, merge=True)


def test_half_precision_is_refused():
    inputs = {
        name: x.bfloat16() if x.is_floating_point() else x
        for name, x in draw().items()
    }
    with pytest.raises(ValueError, match='float32 or float64'):
        selective_scan_paths(**inputs, merge=True)


def test_second_derivative_is_refused():
    inputs = draw()
    inputs['A'].requires_grad_()
    y = selective_scan_paths(**inputs, merge=True)
    with pytest.raises(RuntimeError, match='no second derivative'):
        torch.autograd.grad(y.sum(), inputs['A'], create_graph=True)


@pytest.mark.parametrize('merge', (True, False))
@pytest.mark.parametrize('needs_gradient', (True, False))
def test_operator_is_sound(merge, needs_gradient):
    inputs = draw()
    if needs_gradient:
        for name in NAMES[:-1]:
            inputs[name].requires_grad_()
    torch.library.opcheck(
        torch.ops.crackssm.selective_scan_paths.default,
        tuple(inputs[name] for name in NAMES) + (merge,),
    )


def test_flops_are_those_of_products_and_scans():
    inputs = draw()
    with FlopCounterMode(display=False) as counter:
        run(inputs, merge=True)
    with FlopCounterMode(display=False) as parts:
        dts = torch.ones(2 * 150, 2, requires_grad=True)
        weight = inputs['dt_weight'][0].requires_grad_()
        delta = F.linear(dts, weight).unflatten(0, (2, 150)).transpose(1, 2)
        B = torch.ones(2, 1, 3, 150)
        u = torch.ones(2, 20, 150)
        y = selective_scan(u, delta, inputs['A'][:20], B, B, inputs['D'][:20])
        y.sum().backward()
    assert counter.get_total_flops() == 3 * parts.get_total_flops()


def test_the_call_is_packed_as_the_header_says(repo_root):
    assert module._CALL.format == struct_format(repo_root, 'path_call')
