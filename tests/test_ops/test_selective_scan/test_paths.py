"""S6 along paths against gathering, the scan and scattering."""

import re

import pytest
import torch
import torch.nn.functional as F
from native_scan import needs_kernel
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


def assert_close(y, expected, tolerance):
    assert y.shape == expected.shape
    error = (y.double() - expected).abs().max() / expected.abs().max()
    assert error < tolerance, error.item()


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
        dict(rank=0),
    ],
    ids=str,
)
def test_like_sequences(instruction_set, shape, merge):
    inputs = draw(**shape)
    expected = by_sequences(**inputs, merge=merge)
    assert_close(selective_scan_paths(**inputs, merge=merge), expected, 3e-6)


@pytest.mark.parametrize('merge', (True, False))
def test_double(merge):
    inputs = {
        name: x.double() if x.is_floating_point() else x
        for name, x in draw(d_state=5).items()
    }
    expected = by_sequences(**inputs, merge=merge)
    assert_close(selective_scan_paths(**inputs, merge=merge), expected, 1e-12)


def test_threads_share_the_work_alike(threads):
    inputs = draw(dim=100)
    threads(1)
    expected = [selective_scan_paths(**inputs, merge=m) for m in (True, False)]
    for count in (2, 3):
        threads(count)
        for merge, y in zip((True, False), expected, strict=True):
            assert torch.equal(selective_scan_paths(**inputs, merge=merge), y)


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
    y = selective_scan_paths(**inputs, merge=False)
    assert y.shape == (0, 150, 3, 20)


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


def test_a_gradient_is_refused():
    inputs = draw()
    inputs['A'].requires_grad_()
    with pytest.raises(RuntimeError, match='has no gradient'):
        selective_scan_paths(**inputs, merge=True)
    with torch.no_grad():
        selective_scan_paths(**inputs, merge=True)


@pytest.mark.parametrize('merge', (True, False))
def test_operator_is_sound(merge):
    torch.library.opcheck(
        torch.ops.crackssm.selective_scan_paths.default,
        tuple(draw()[name] for name in NAMES) + (merge,),
    )


def test_flops_are_those_of_products_and_scan():
    inputs = draw()
    with FlopCounterMode(display=False) as counter:
        selective_scan_paths(**inputs, merge=True)
    with FlopCounterMode(display=False) as parts:
        delta = F.linear(torch.ones(2 * 150, 2), inputs['dt_weight'][0])
        u = delta.unflatten(0, (2, 150)).transpose(1, 2)
        B = torch.ones(2, 1, 3, 150)
        selective_scan(u, u, inputs['A'][:20], B, B, inputs['D'][:20])
    assert counter.get_total_flops() == 3 * parts.get_total_flops()


def test_the_call_is_packed_as_the_header_says(repo_root):
    header = repo_root / 'mmseg_crackssm/ops/selective_scan/csrc/scan.h'
    text = header.read_text().split('} scan_call;')[1]
    body = re.search(r'typedef struct \{(.*?)\} path_call;', text, re.S)[1]
    fields = re.sub(r'/\*.*?\*/', '', body, flags=re.S)
    lines = [line.strip() for line in fields.split(';') if line.strip()]
    pointers = sum(line.count('*') for line in lines)
    numbers = sum(
        line.count(',') + 1
        for line in lines
        if line.startswith('int64_t') and '*' not in line
    )
    assert module._CALL.format == f'{pointers}P{numbers}q'
