"""Every backend against the outputs of mamba-ssm's reference code."""

import pytest
import torch
import torch.nn.functional as F

from mmseg_crackssm.ops import available_backends, selective_scan
from mmseg_crackssm.ops.selective_scan import BACKENDS, unavailable_reason
from triton_support import INTERPRETED, REASON

CASES = {
    'small': (
        'L1_min',
        'L1_full',
        'L7_plain',
        'L7_full',
        'L7_G2',
        'L64_N1_G4',
        'L64_N16_3d',
        'L64_N16_mixed',
        'L64_G1',
        'L64_softplus_nobias',
        'L64_bias_nosoftplus',
    ),
    'medium': ('L197_N16_G4', 'L197_N8_z', 'L197_stress'),
    'long': ('L1000_N1', 'L1000_N16', 'L1000_N4_G2', 'L1000_slow'),
}
NAMES = [(file, name) for file, names in CASES.items() for name in names]
# The files hold the exact gradients of B and C rounded to float32.
ROUNDED = 1e-7


def backends_and_dtypes(device):
    """Every backend that serves a device, installed or not."""
    for name in (*BACKENDS, 'reference'):
        backend = BACKENDS.get(name)
        for dtype in (torch.float32, torch.float64):
            if (
                backend is None
                or backend.serves(device, dtype, d_state=1)
                or (name == 'triton' and dtype == torch.float32)
            ):
                yield pytest.param(name, dtype, id=f'{name}-{str(dtype)[6:]}')


def skip_unless_available(backend, device):
    if backend == 'triton' and device == 'cpu':
        if not INTERPRETED:
            pytest.skip(REASON)
    elif backend not in available_backends(device):
        pytest.skip(f'backend {backend}: {unavailable_reason(backend)}')


@pytest.fixture(scope='module')
def cases(golden_dir):
    return {
        file: torch.load(golden_dir / f'scan_{file}.pt', weights_only=True)[
            'cases'
        ]
        for file in CASES
    }


def relative_error(actual, expected):
    expected = expected.double()
    scale = expected.abs().max().clamp_min(1e-30)
    return ((actual.double().cpu() - expected).abs().max() / scale).item()


def test_no_golden_case_is_left_out(cases):
    stored = {(file, name) for file in cases for name in cases[file]}
    assert stored == set(NAMES)


@pytest.mark.parametrize(
    ('file', 'name'), NAMES, ids=[f'{file}-{name}' for file, name in NAMES]
)
@pytest.mark.parametrize(
    ('backend', 'dtype'), list(backends_and_dtypes('cpu'))
)
def test_output_and_gradients(cases, file, name, backend, dtype):
    skip_unless_available(backend, 'cpu')
    check_case(cases[file][name], backend=backend, dtype=dtype, device='cpu')


@pytest.mark.gpu
@pytest.mark.parametrize(
    ('backend', 'dtype'), list(backends_and_dtypes('cuda'))
)
def test_output_and_gradients_on_cuda(cases, backend, dtype):
    skip_unless_available(backend, 'cuda')
    for file, name in NAMES:
        check_case(
            cases[file][name], backend=backend, dtype=dtype, device='cuda'
        )


def check_case(case, backend, dtype, device):
    inputs = {
        key: x.detach().to(device, dtype).requires_grad_()
        for key, x in case['inputs'].items()
    }
    gate = inputs.get('z')
    scanned = {key: x for key, x in inputs.items() if key != 'z'}

    out = selective_scan(
        **scanned, delta_softplus=case['delta_softplus'], backend=backend
    )
    if gate is not None:
        out = out * F.silu(gate)
    out.backward(case['grad_out'].to(device, dtype))

    tolerance = 1e-9 if dtype == torch.float64 else 2e-5
    assert out.dtype == dtype
    assert relative_error(out, case['out_f64']) < tolerance
    assert set(case['grads_f64']) == set(inputs)
    for key, x in inputs.items():
        expected = case['grads_f64'][key]
        rounded = expected.dtype == torch.float32
        bound = max(tolerance, ROUNDED) if rounded else tolerance
        assert relative_error(x.grad, expected) < bound, key
