import dataclasses
import os
import subprocess
import sys

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
        (('triton',), 'cuda', torch.float32, 'triton'),
        (('mamba_ssm', 'triton'), 'cuda', torch.float32, 'triton'),
        (('mamba_ssm', 'triton'), 'cuda', torch.float64, 'torch'),
        (('triton',), 'cpu', torch.float32, 'torch'),
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


@pytest.mark.parametrize('interpreted', (False, True))
def test_triton_on_the_cpu(installed, monkeypatch, interpreted):
    """Only by name, and only where its kernels are interpreted."""
    installed('triton')
    entry = dataclasses.replace(
        backends.BACKENDS['triton'],
        named_device_types=('cpu',) if interpreted else (),
    )
    monkeypatch.setitem(backends.BACKENDS, 'triton', entry)
    assert backends.resolve_backend('auto', 'cpu', torch.float32) == 'torch'
    assert 'triton' not in available_backends('cpu')
    if interpreted:
        backends.resolve_backend('triton', 'cpu', torch.float32)
    else:
        with pytest.raises(ValueError, match="'triton' expects device cuda"):
            backends.resolve_backend('triton', 'cpu', torch.float32)


@pytest.mark.parametrize('value', (None, '0', '1'))
def test_triton_is_interpreted_if_the_environment_says_so(value):
    environment = {**os.environ, 'TRITON_INTERPRET': value}
    if value is None:
        del environment['TRITON_INTERPRET']
    code = (
        'from mmseg_crackssm.ops.selective_scan.backends import BACKENDS\n'
        "devices = BACKENDS['triton'].named_device_types\n"
        "raise SystemExit(10 if devices == ('cpu',) else 20)\n"
    )
    status = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True
    ).returncode
    assert status == (10 if value == '1' else 20)


def test_missing_triton_says_what_is_missing(installed):
    installed('mamba_ssm')
    with pytest.raises(RuntimeError, match="'triton' is not available: miss"):
        backends.resolve_backend('triton', 'cuda', torch.float32)


@pytest.mark.parametrize('reads_half', (False, True))
def test_half_inputs_reach_backends_that_read_them(
    monkeypatch, make_inputs, reads_half
):
    entry = dataclasses.replace(
        backends.BACKENDS['torch'], reads_half=reads_half
    )
    monkeypatch.setitem(backends.BACKENDS, 'torch', entry)
    seen = []
    for name in ('forward', 'backward'):

        def record(*args):
            seen.extend(x.dtype for x in args[:7])
            raise InterruptedError

        monkeypatch.setattr(chunked, name, record)
    inputs = make_inputs(dtype=torch.bfloat16)
    arguments = (*inputs.values(), True)
    operators = torch.ops.crackssm
    with pytest.raises(InterruptedError):
        operators.selective_scan(*arguments, 'torch')
    with pytest.raises(InterruptedError):
        operators.selective_scan_backward(
            inputs['u'], *arguments, torch.zeros(0), 'torch'
        )
    expected = torch.bfloat16 if reads_half else torch.float32
    assert seen == [expected] * 14


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
