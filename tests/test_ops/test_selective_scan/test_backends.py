import pytest
import torch

from mmseg_crackssm.ops import available_backends, selective_scan
from mmseg_crackssm.ops.selective_scan import backends, chunked

VARIABLE = 'MMSEG_CRACKSSM_SCAN'


@pytest.fixture(autouse=True)
def unset_variable(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def installed(monkeypatch):
    """A function that says which optional backends seem to be there."""

    def pretend(*names):
        monkeypatch.setattr(
            backends,
            'unavailable_reason',
            lambda name: None if name in (*names, 'torch') else 'missing.',
        )

    return pretend


@pytest.mark.parametrize(
    ('names', 'device', 'dtype', 'expected'),
    (
        ((), 'cpu', torch.float32, 'torch'),
        ((), 'cuda', torch.float32, 'torch'),
        (('native', 'mamba_ssm'), 'cpu', torch.float32, 'native'),
        (('native', 'mamba_ssm'), 'cpu', torch.float64, 'native'),
        (('native', 'mamba_ssm'), 'cuda', torch.float32, 'mamba_ssm'),
        (('native', 'mamba_ssm'), 'cuda', torch.float64, 'torch'),
        (('native',), 'cuda', torch.float32, 'torch'),
        (('native', 'mamba_ssm'), 'mps', torch.float32, 'torch'),
    ),
)
def test_auto(installed, names, device, dtype, expected):
    installed(*names)
    assert backends.resolve_backend('auto', device, dtype) == expected


def test_large_states_pass_by_the_cuda_kernel(installed):
    installed('mamba_ssm')
    for d_state, expected in ((256, 'mamba_ssm'), (257, 'torch')):
        arguments = ('cuda', torch.float32, d_state)
        assert backends.resolve_backend('auto', *arguments) == expected
    with pytest.raises(ValueError, match='N up to 256, got .* 257'):
        backends.resolve_backend('mamba_ssm', *arguments)


def test_operators_tell_the_state_size(monkeypatch, make_inputs):
    small = backends.Backend('.native', dtypes=(torch.float32,), max_d_state=2)
    monkeypatch.setitem(backends.BACKENDS, 'native', small)
    calls = count_chunked_calls(monkeypatch)
    selective_scan(**make_inputs(d_state=3))
    selective_scan(**make_inputs(d_state=3, requires_grad=True)).sum()
    assert len(calls) == 2


def test_available_backends(installed):
    installed('native', 'mamba_ssm')
    assert available_backends('cpu') == ('native', 'torch', 'reference')
    assert available_backends('cuda:1') == ('mamba_ssm', 'torch', 'reference')
    installed()
    assert available_backends() == ('torch', 'reference')


def test_unknown_backend(make_inputs):
    with pytest.raises(ValueError, match="'native'.*'torch'.*got 'triton9'"):
        selective_scan(**make_inputs(), backend='triton9')


def test_missing_backend_says_what_is_missing(make_inputs, installed):
    installed()
    with pytest.raises(RuntimeError, match="'native' is not available: miss"):
        selective_scan(**make_inputs(), backend='native')


def test_backend_for_another_device_or_precision(make_inputs):
    with pytest.raises(ValueError, match="'mamba_ssm' expects device cuda"):
        selective_scan(**make_inputs(), backend='mamba_ssm')
    with pytest.raises(ValueError, match="'native' expects .* got cuda"):
        backends.resolve_backend('native', 'cuda', torch.float32)
    with pytest.raises(ValueError, match='precision torch.float32 .*got .*64'):
        backends.resolve_backend('mamba_ssm', 'cuda', torch.float64)


def count_chunked_calls(monkeypatch):
    calls = []
    forward = chunked.forward

    def counting(*args):
        calls.append(1)
        return forward(*args)

    monkeypatch.setattr(chunked, 'forward', counting)
    return calls


def test_environment_variable_replaces_auto(monkeypatch, make_inputs):
    inputs = make_inputs()
    calls = count_chunked_calls(monkeypatch)
    expected = selective_scan(**inputs, backend='reference')
    assert not calls
    monkeypatch.setenv(VARIABLE, 'torch')
    torch.testing.assert_close(selective_scan(**inputs), expected)
    assert len(calls) == 1
    monkeypatch.setenv(VARIABLE, 'reference')
    assert torch.equal(selective_scan(**inputs), expected)
    assert len(calls) == 1
    # An explicit argument wins.
    selective_scan(**inputs, backend='torch')
    assert len(calls) == 2


def test_environment_variable_with_a_wrong_name(monkeypatch, make_inputs):
    monkeypatch.setenv(VARIABLE, 'fast')
    with pytest.raises(ValueError, match=f"got 'fast' .*{VARIABLE}"):
        selective_scan(**make_inputs())


def test_traced_operator_refuses_the_reference(monkeypatch, make_inputs):
    monkeypatch.setenv(VARIABLE, 'reference')
    with pytest.raises(ValueError, match="backend='reference'"):
        torch.ops.crackssm.selective_scan(
            *make_inputs().values(), True, 'auto'
        )


def test_module_that_does_not_import_is_a_reason(monkeypatch):
    missing = backends.Backend(module='.no_such_module', dtypes=())
    monkeypatch.setitem(backends.BACKENDS, 'broken', missing)
    assert 'no_such_module' in backends.unavailable_reason('broken')
