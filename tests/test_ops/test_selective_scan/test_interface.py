import pytest
import torch

from mmseg_crackssm.ops import selective_scan

# make_inputs draws B = 2, D = 4, L = 37, N = 3, G = 2 unless told otherwise.
WRONG = {
    'u without batch': ('u', lambda x: x[0], r'u: expected \(B, D, L\)'),
    'u empty': ('u', lambda x: x[..., :0], 'u: expected D and L of at least'),
    'delta shorter': ('delta', lambda x: x[..., 1:], r'delta: .*\(2, 4, 36\)'),
    'A flat': ('A', lambda x: x[:, 0], r'A: expected \(D, N\) with D = 4'),
    'A of other D': ('A', lambda x: x[1:], r'A: .* got shape \(3, 3\)'),
    'A without states': ('A', lambda x: x[:, :0], 'A: .* N of at least 1'),
    'A complex': (
        'A',
        lambda x: x.to(torch.complex64),
        'A: .*real.*complex64',
    ),
    'B of other N': ('B', lambda x: x[:, :, 1:], r'B: expected \(2, 3, 37\)'),
    'C of other N': ('C', lambda x: x[:, :, 1:], r'C: expected \(2, 3, 37\)'),
    'B of other L': ('B', lambda x: x[..., 1:], r'B: .*\(2, 2, 3, 36\)'),
    'B of other batch': ('B', lambda x: x[1:], r'B: .*\(1, 2, 3, 37\)'),
    'B of 2 dimensions': ('B', lambda x: x[0, 0], r'B: .*\(3, 37\)'),
    'G not dividing D': (
        'B',
        lambda x: torch.cat([x, x[:, :1]], 1),
        'B: expected a number of groups that divides D = 4, got 3',
    ),
    'G of B and C': (
        'C',
        lambda x: torch.cat([x, x], 1),
        'C: expected the groups of B, 2, or 1, got 4',
    ),
    'D of other size': (
        'D',
        lambda x: x[1:],
        r'D: expected \(D,\) with D = 4',
    ),
    'bias of other size': (
        'delta_bias',
        lambda x: x[:, None],
        r'delta_bias: .*\(4, 1\)',
    ),
    'integer u': ('u', lambda x: x.long(), 'u: .*floating-point.*int64'),
    'one float64': (
        'B',
        lambda x: x.double(),
        'B: expected float32, bfloat16 or float16 .*float64',
    ),
    'no tensor': ('A', lambda x: None, 'A: expected a tensor, got NoneType'),
    'D no tensor': (
        'D',
        lambda x: 1.0,
        'D: expected a tensor or None, got float',
    ),
    'other device': (
        'C',
        lambda x: x.to('meta'),
        'C: .*device of u, cpu.*meta',
    ),
}


@pytest.mark.parametrize('case', WRONG)
def test_wrong_input_is_named(make_inputs, case):
    name, spoil, message = WRONG[case]
    inputs = make_inputs()
    inputs[name] = spoil(inputs[name])
    with pytest.raises(ValueError, match=message):
        selective_scan(**inputs)


def test_float64_must_be_whole(make_inputs):
    inputs = make_inputs(dtype=torch.float64)
    inputs['A'] = inputs['A'].float()
    with pytest.raises(ValueError, match='A: expected float64 .*float32'):
        selective_scan(**inputs)


@pytest.mark.parametrize('backend', ('auto', 'torch', 'reference'))
def test_forms_of_B_and_C_agree(make_inputs, backend):
    inputs = make_inputs(groups=None)
    expected = selective_scan(**inputs, backend=backend)
    grouped = {name: inputs[name].unsqueeze(1) for name in ('B', 'C')}
    repeated = {name: x.repeat(1, 2, 1, 1) for name, x in grouped.items()}
    for B, C in (
        (grouped['B'], inputs['C']),
        (grouped['B'], grouped['C']),
        (repeated['B'], inputs['C']),
        (inputs['B'], repeated['C']),
        (repeated['B'], grouped['C']),
    ):
        y = selective_scan(**{**inputs, 'B': B, 'C': C}, backend=backend)
        torch.testing.assert_close(y, expected)


@pytest.mark.parametrize('backend', ('auto', 'torch', 'reference'))
def test_shared_B_has_a_gradient_rounded_once(make_inputs, backend):
    """The groups' parts are summed in float32, whatever the type of B."""
    inputs = make_inputs(dim=32, groups=16, dtype=torch.bfloat16)
    inputs['B'] = inputs['B'][:, 0].clone()
    grads = []
    for dtype in (torch.bfloat16, torch.float32):
        leaves = {
            name: x.to(dtype).requires_grad_() for name, x in inputs.items()
        }
        y = selective_scan(**leaves, backend=backend)
        dy = torch.ones_like(y)
        grads.append(torch.autograd.grad(y, leaves['B'], dy)[0])
    assert torch.equal(grads[0], grads[1].to(torch.bfloat16))


@pytest.mark.parametrize('backend', ('auto', 'torch'))
def test_softplus_is_the_identity_beyond_20(make_inputs, backend):
    """As torch has it: in float64 the difference of 1e-9 can be seen."""
    inputs = make_inputs(length=5, dtype=torch.float64, requires_grad=True)
    del inputs['delta_bias']
    with torch.no_grad():
        inputs['delta'] += 20
    y = selective_scan(**inputs, delta_softplus=True, backend=backend)
    expected = selective_scan(**inputs, backend=backend)
    torch.testing.assert_close(y, expected, rtol=1e-14, atol=1e-14)
    for got, wanted in zip(
        torch.autograd.grad(y.sum(), inputs.values()),
        torch.autograd.grad(expected.sum(), inputs.values()),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize('backend', ('auto', 'torch'))
def test_empty_batch(make_inputs, backend):
    inputs = make_inputs(batch=0, requires_grad=True)
    y = selective_scan(**inputs, backend=backend)
    assert y.shape == (0, 4, 37)
    y.sum().backward()
    for name, x in inputs.items():
        assert x.grad.shape == x.shape, name
        assert not x.grad.any(), name


def test_inputs_are_not_written_to(make_inputs):
    inputs = make_inputs(requires_grad=True)
    before = {name: x.detach().clone() for name, x in inputs.items()}
    selective_scan(**inputs, delta_softplus=True).sum().backward()
    for name, x in inputs.items():
        assert torch.equal(x, before[name]), name
