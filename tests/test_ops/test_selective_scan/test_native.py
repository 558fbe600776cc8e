"""The C kernel: every instruction set, shape and number of threads."""

import ctypes
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from checks import c_compiler
from mmseg_crackssm.ops.selective_scan import native
from mmseg_crackssm.ops.selective_scan.reference import (
    selective_scan_reference,
)

NAMES = ('u', 'delta', 'A', 'B', 'C', 'D', 'delta_bias')
REASON = native._load()[1]
needs_kernel = pytest.mark.skipif(
    REASON is not None, reason=f'native scan: {REASON}'
)


def has_instruction_set(name):
    if REASON is not None:
        return False
    level = native.INSTRUCTION_SETS.index(name)
    found = native._library().scan_set_level(level) == level
    native._library().scan_set_level(-1)
    return found


@pytest.fixture
def best_instruction_set():
    """Leave the best instruction set behind, whatever a test forces."""
    yield
    native.set_instruction_set(None)


@pytest.fixture(
    params=[
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                not has_instruction_set(name),
                reason=f'no kernel, or this processor lacks {name}',
            ),
        )
        for name in native.INSTRUCTION_SETS
    ]
)
def instruction_set(request, best_instruction_set):
    native.set_instruction_set(request.param)
    return request.param


@pytest.fixture
def threads():
    """A function that sets the number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def draw(dim=20, length=129, d_state=4, groups=2, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    return {
        'u': normal(batch, dim, length),
        'delta': normal(batch, dim, length) - 1,
        'A': -torch.exp(0.5 * normal(dim, d_state)),
        'B': normal(batch, groups, d_state, length),
        'C': normal(batch, groups, d_state, length),
        'D': normal(dim),
        'delta_bias': 0.5 * normal(dim),
    }


def output_gradient(u):
    generator = torch.Generator().manual_seed(7)
    return torch.randn(u.shape, generator=generator)


def run_native(inputs, softplus=True, dy=None):
    """Output and gradients by name."""
    arguments = [inputs.get(name) for name in NAMES]
    dy = output_gradient(inputs['u']) if dy is None else dy
    y, states = native.forward(*arguments, softplus, True)
    grads = native.backward(dy.to(y.dtype), *arguments, softplus, states)
    return {'y': y, **dict(zip(NAMES, grads, strict=True))}


def run_reference(inputs, softplus=True, dy=None):
    """The same from the loop in float64."""
    inputs = {
        name: x.double().detach().requires_grad_()
        for name, x in inputs.items()
    }
    dy = output_gradient(inputs['u']) if dy is None else dy
    y = selective_scan_reference(**inputs, delta_softplus=softplus)
    y.backward(dy.double())
    return {
        'y': y.detach(),
        **{
            name: inputs[name].grad if name in inputs else None
            for name in NAMES
        },
    }


def assert_close(actual, expected, tolerance=3e-6):
    """Largest error relative to the largest value, tensor by tensor."""
    for name, x in expected.items():
        if x is None:
            assert actual[name] is None, name
            continue
        assert actual[name].shape == x.shape, name
        scale = x.abs().max().clamp_min(1e-30)
        error = (actual[name].double() - x).abs().max() / scale
        assert error < tolerance, (name, error.item())


@cache
def reference_case(shape):
    inputs = draw(**dict(shape))
    return inputs, run_reference(inputs)


SHAPES = [
    dict(d_state=d_state, groups=groups)
    for d_state in (1, 2, 3, 4, 8, 16, 17)
    for groups in (1, 2, 4)
] + [
    dict(length=length, d_state=d_state)
    for length in (1, 7, 64, 1000)
    for d_state in (1, 4, 17)
]


def test_kernel_is_there_where_it_can_be_compiled():
    # The installation goes on without it: the tests must not.
    if c_compiler() is None:
        pytest.skip('no C compiler')
    assert REASON is None, REASON


@needs_kernel
@pytest.mark.parametrize(
    'shape', SHAPES, ids=lambda s: '-'.join(f'{k}{v}' for k, v in s.items())
)
def test_parity_with_the_float64_loop(instruction_set, shape):
    inputs, expected = reference_case(tuple(shape.items()))
    assert_close(run_native(inputs), expected)


@needs_kernel
@pytest.mark.parametrize(
    'shape', [dict(dim=64, d_state=16), dict(dim=32, d_state=1, groups=1)]
)
def test_whole_vectors_of_channels(instruction_set, shape):
    inputs, expected = reference_case(tuple(shape.items()))
    assert_close(run_native(inputs), expected)


@needs_kernel
@pytest.mark.parametrize('absent', ((), ('D',), ('delta_bias',)))
@pytest.mark.parametrize('softplus', (False, True))
def test_options(instruction_set, absent, softplus):
    inputs = draw()
    inputs['delta'] = inputs['delta'].abs()
    inputs['delta_bias'] = inputs['delta_bias'].abs()
    for name in absent:
        del inputs[name]
    expected = run_reference(inputs, softplus=softplus)
    assert_close(run_native(inputs, softplus=softplus), expected)


@needs_kernel
def test_double():
    inputs, expected = reference_case(())
    inputs = {name: x.double() for name, x in inputs.items()}
    assert_close(run_native(inputs), expected, tolerance=1e-13)


@needs_kernel
def test_strides():
    inputs, expected = reference_case(())
    dy = output_gradient(inputs['u'])
    stepped = {}
    for name, x in inputs.items():
        # Twice as wide in every dimension but time for half of the tensors,
        # in time as well for the others.
        wide = torch.full([2 * size for size in x.shape], torch.nan)
        stepped[name] = wide[(slice(None, None, 2),) * x.dim()]
        if name in ('u', 'B'):
            wide = torch.full(
                [*(2 * size for size in x.shape[:-1]), x.shape[-1]], torch.nan
            )
            stepped[name] = wide[(slice(None, None, 2),) * (x.dim() - 1)]
        stepped[name].copy_(x)
        assert not stepped[name].is_contiguous()
    transposed = dy.transpose(1, 2).contiguous().transpose(1, 2)
    assert_close(run_native(stepped, dy=transposed), expected)


@needs_kernel
def test_expanded_inputs():
    inputs = draw(batch=2, groups=2)
    inputs['B'] = inputs['B'][:1, :1].expand(2, 2, -1, -1)
    dy = torch.ones(()).expand(inputs['u'].shape)
    expected = run_reference(inputs, dy=dy)
    assert_close(run_native(inputs, dy=dy), expected)


@needs_kernel
@pytest.mark.parametrize('value', (-100.0, 100.0))
def test_extreme_steps(instruction_set, value):
    inputs = draw(d_state=5)
    inputs['delta'][:, ::3] += value
    inputs['delta'][..., 20:25] += value
    assert_close(run_native(inputs), run_reference(inputs))


@needs_kernel
def test_growing_and_vanishing_decay(instruction_set):
    inputs = draw(length=40, d_state=3)
    inputs['delta'] = inputs['delta'].abs()
    del inputs['delta_bias']
    inputs['A'][:, 0] = -1e30
    inputs['A'][:, 1] = 0
    inputs['A'][:, 2] = 0.01
    expected = run_reference(inputs, softplus=False)
    assert_close(run_native(inputs, softplus=False), expected)


@needs_kernel
@pytest.mark.parametrize('value', (torch.nan, torch.inf, -torch.inf))
@pytest.mark.parametrize('name', ('u', 'delta', 'B', 'C'))
def test_values_that_are_not_finite(instruction_set, name, value):
    inputs = draw(dim=32, length=50, d_state=5, groups=1)
    place = (1, 0, 2, 30) if name in 'BC' else (1, 5, 30)
    inputs[name][place] = value
    actual, expected = run_native(inputs), run_reference(inputs)
    for key, x in expected.items():
        finite = x.isfinite()
        assert torch.equal(actual[key].isfinite(), finite), key
        assert torch.allclose(
            actual[key].double()[finite], x[finite], rtol=1e-4, atol=1e-4
        ), key


@needs_kernel
def test_denormal_numbers(instruction_set):
    inputs = draw(length=200)
    inputs['u'][..., 1:] = 1e-40
    inputs['u'][..., 0] = 1e-30
    y = run_native(inputs)['y'].double()
    expected = run_reference(inputs)['y']
    assert (y - expected).abs().max() < 1e-5 * expected.abs().max()


@needs_kernel
def test_long_sums_keep_their_digits(instruction_set):
    inputs = draw(dim=16, length=8192, d_state=16, groups=1, batch=1)
    dy = output_gradient(inputs['u']) + 0.3
    doubles = {name: x.double() for name, x in inputs.items()}
    expected = run_native(doubles, dy=dy)
    assert_close(run_native(inputs, dy=dy), expected, tolerance=1e-6)


@needs_kernel
def test_probe_counts_its_exponentials(instruction_set, threads):
    threads(1)
    once = native.probe_exp(1)
    assert once > 0
    assert native.probe_exp(5) == 5 * once
    threads(2)
    assert native.probe_exp(1) == 2 * once
    with pytest.raises(RuntimeError, match='failed for 0 repeats'):
        native.probe_exp(0)


def denormals_survive():
    """Whether all threads of torch still compute with denormal numbers."""
    x = torch.full((1 << 18,), 1e-40)
    return bool(((x * 1.0) > 0).all()) and sys.float_info.min / 2 > 0


@needs_kernel
def test_floating_point_mode_is_restored(threads):
    threads(2)
    run_native(draw(dim=64, d_state=16))
    assert denormals_survive()
    if torch.set_flush_denormal(True):
        try:
            run_native(draw())
            assert not denormals_survive()
        finally:
            torch.set_flush_denormal(False)


@needs_kernel
@pytest.mark.parametrize('count', (1, 2, 3))
@pytest.mark.parametrize('groups', (1, 4))
def test_runs_repeat_bit_by_bit(threads, count, groups):
    threads(count)
    inputs = draw(dim=128, groups=groups, d_state=8, batch=1)
    first = run_native(inputs)
    assert_close(first, run_reference(inputs))
    for _ in range(5):
        again = run_native(inputs)
        assert all(torch.equal(first[key], again[key]) for key in first)


class ScanInWorker(Dataset):
    """Scans in a worker process, with more threads than it may use.

    The inputs come from the parent: torch's own operators hang with two
    threads after a fork. One sequence, so that the kernel alone runs.
    """

    def __init__(self):
        self.inputs = draw(dim=64, batch=1)
        self.dy = output_gradient(self.inputs['u'])

    def __len__(self):
        return 2

    def __getitem__(self, index):
        torch.set_num_threads(2)
        outputs = run_native(self.inputs, dy=self.dy)
        return outputs, native._library().scan_has_threads()


@needs_kernel
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='no fork here')
def test_forked_worker_does_not_hang(threads):
    threads(2)
    dataset = ScanInWorker()
    expected, has_threads = dataset[0]
    assert has_threads
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=1,
        multiprocessing_context='fork',
        timeout=60,
    )
    for outputs, has_threads in loader:
        for name, x in expected.items():
            assert torch.equal(outputs[name], x), name
        assert not has_threads


RUNTIMES_SCRIPT = """
import re
import torch
from mmseg_crackssm.ops.selective_scan import native

def runtimes():
    maps = open('/proc/self/maps').read()
    return set(re.findall(r'/\\S*lib(?:g|i)?omp\\S*', maps))

torch.set_num_threads(2)
torch.ones(1 << 20).add_(1)
before = runtimes()
x = torch.rand(1, 64, 40)
B = torch.rand(1, 1, 2, 40)
native.forward(x, x, -torch.rand(64, 2), B, B, None, None, True, False)
print(before == runtimes(), native._library().scan_has_threads())
"""


@needs_kernel
@pytest.mark.skipif(
    not Path('/proc/self/maps').exists(), reason='no /proc/self/maps here'
)
def test_no_second_openmp_runtime(repo_root):
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', RUNTIMES_SCRIPT],
        env={**os.environ, 'PYTHONPATH': str(repo_root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines()[-1] == 'True 1'


@needs_kernel
def test_states_are_what_the_kernel_writes():
    inputs = draw(length=65, d_state=3)
    _, states = native.forward(*inputs.values(), True, True)
    assert states.shape == native.states_shape(2, 20, 65, 3, 2, 'cpu')
    assert states.shape == (2, 20, 3, 3)
    assert native._library().scan_saved_every() == 32
    y, states = native.forward(*inputs.values(), True, False)
    assert states.numel() == 0
    assert torch.equal(y, run_native(inputs)['y'])


@needs_kernel
def test_forced_instruction_set(monkeypatch, best_instruction_set):
    native.set_instruction_set('baseline')
    assert native.instruction_set() == 'baseline'
    with pytest.raises(ValueError, match="expected one of .* got 'mmx'"):
        native.set_instruction_set('mmx')

    native._load.cache_clear()
    monkeypatch.setenv(native.ISA_VARIABLE, 'baseline')
    assert native.instruction_set() == 'baseline'
    native._load.cache_clear()
    monkeypatch.delenv(native.ISA_VARIABLE)
    best = native.instruction_set()
    missing = native.INSTRUCTION_SETS[
        native.INSTRUCTION_SETS.index(best) + 1 :
    ]
    for name in missing:
        with pytest.raises(ValueError, match='this processor has none above'):
            native.set_instruction_set(name)


@pytest.fixture
def reloaded():
    """Forget the library before and after a test."""
    native._load.cache_clear()
    native._log_once.cache_clear()
    yield
    native._load.cache_clear()
    native._log_once.cache_clear()


def test_missing_library_is_said_once(monkeypatch, reloaded):
    lines = []
    monkeypatch.setattr(native, 'LIBRARY_NAME', 'absent.so')
    monkeypatch.setattr(
        native, 'print_log', lambda line, **_: lines.append(line)
    )
    assert not native.is_available()
    for _ in range(2):
        reason = native.unavailable_reason()
    assert 'not built' in reason and 'gcc' in reason
    assert len(lines) == 1 and reason in lines[0]
    with pytest.raises(RuntimeError, match='not built'):
        native.instruction_set()


@needs_kernel
def test_library_of_another_version(monkeypatch, reloaded):
    monkeypatch.setattr(native, '_INTERFACE_VERSION', -1)
    monkeypatch.setattr(native, 'print_log', lambda *_, **__: None)
    assert 'another version' in native.unavailable_reason()


def test_library_that_does_not_load(monkeypatch, reloaded):
    # A file that is there and is no library.
    monkeypatch.setattr(native, 'LIBRARY_NAME', 'native.py')
    monkeypatch.setattr(native, 'print_log', lambda *_, **__: None)
    assert 'does not load' in native.unavailable_reason()


@needs_kernel
def test_failure_in_the_kernel_is_an_error():
    inputs = draw()
    inputs['B'] = inputs['B'].repeat(1, 3, 1, 1)
    with pytest.raises(RuntimeError, match='status 2'):
        native.forward(*inputs.values(), True, False)


@needs_kernel
def test_the_call_is_packed_as_the_header_says(repo_root):
    header = repo_root / 'mmseg_crackssm/ops/selective_scan/csrc/scan.h'
    text = header.read_text()
    body = re.search(r'typedef struct \{(.*?)\} scan_call;', text, re.S)[1]
    fields = re.sub(r'/\*.*?\*/', '', body, flags=re.S)
    lines = [line.strip() for line in fields.split(';') if line.strip()]
    pointers = sum(line.count('*') for line in lines)
    numbers = sum(
        line.count(',') + 1 for line in lines if line.startswith('int64_t')
    )
    assert native._CALL.format == f'{pointers}P{numbers}q'
    assert native._library().scan_call_size() == native._CALL.size
    assert ctypes.sizeof(ctypes.c_void_p) == 8


@pytest.mark.slow
def test_under_sanitizers(repo_root):
    result = subprocess.run(
        ['bash', str(repo_root / '.ci' / 'sanitize'), '20'],
        capture_output=True,
        text=True,
    )
    if result.returncode == 77:
        pytest.skip(result.stderr)
    assert result.returncode == 0, result.stderr[-3000:]
    totals = {line.split()[1] for line in result.stdout.splitlines()}
    assert len(totals) == 1, result.stdout
