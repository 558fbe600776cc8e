"""The C kernel's numbers: every instruction set, shape, number of threads."""

import math
import os
import sys
from functools import cache

import pytest
import torch
from native_scan import (
    NAMES,
    assert_close,
    draw,
    needs_kernel,
    output_gradient,
    run_native,
    run_reference,
)
from torch.utils.data import DataLoader, Dataset

from mmseg_crackssm.ops.native import library
from mmseg_crackssm.ops.selective_scan import native
from mmseg_crackssm.ops.selective_scan.reference import (
    selective_scan_reference,
)


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
@pytest.mark.parametrize('value', (1e30, torch.nan))
def test_one_absurd_step_harms_no_other(instruction_set, value):
    # Chunks of 128 steps, blocks of up to 16 channels that share copies.
    inputs = draw(dim=160, length=500, d_state=8, groups=1, batch=1)
    inputs['delta'][:, 37, 200] = value
    y, expected = (
        run(inputs)['y'].double() for run in (run_native, run_reference)
    )
    assert torch.equal(y.isnan(), expected.isnan())
    good = ~expected.isnan()
    scale = expected[good].abs().max()
    # dt * u of the step itself is large, what follows must not suffer.
    assert (y - expected)[good].abs().max() < 3e-6 * scale
    good[:, 37] = False
    scale = expected[good].abs().max()
    assert (y - expected)[good].abs().max() < 3e-6 * scale


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
@pytest.mark.parametrize('sign', (-1, 1))
@pytest.mark.parametrize(
    'exponent', (124.5, 125.5, 131071.0, 131073.0, 1e10, 1e19, 1e38, torch.inf)
)
def test_exponents_around_the_short_way(instruction_set, sign, exponent):
    # Chunks whose exponents of two are at most 125 (AVX-512: 131072) take a
    # shorter way to the same decays; one channel decides for all.
    inputs = draw(dim=16, length=3, d_state=9, groups=1, batch=1)
    inputs['delta'] = 1e-3 + inputs['delta'].abs()
    inputs['delta_bias'].zero_()
    inputs['A'][5, 3] = sign * exponent / math.log2(math.e)
    inputs['delta'][0, 5, 1] = 1
    arguments = [inputs[name] for name in NAMES]
    y, _ = native.forward(*arguments, False, False)
    # in float32: what overflows does so in both
    expected = selective_scan_reference(**inputs)
    torch.testing.assert_close(
        y, expected, rtol=1e-4, atol=1e-4, equal_nan=True
    )


@needs_kernel
def test_slow_decays_are_exact(instruction_set):
    # A decay that is off by a hundred-thousandth of its own distance from 1
    # shows after a thousand steps: within 1e-7 of each factor is not enough.
    inputs = draw(dim=16, length=4096, d_state=4, groups=1, batch=1)
    inputs['delta'] = 0.3 * inputs['delta'] - 5
    inputs['delta_bias'].zero_()
    dy = output_gradient(inputs['u']) + 0.3
    doubles = {name: x.double() for name, x in inputs.items()}
    expected = run_native(doubles, dy=dy)
    assert_close(run_native(inputs, dy=dy), expected, tolerance=2e-6)


@needs_kernel
def test_probe_counts_its_exponentials(instruction_set, threads):
    threads(1)
    once = library.probe_exp(1)
    assert once > 0
    assert library.probe_exp(5) == 5 * once
    threads(2)
    assert library.probe_exp(1) == 2 * once
    with pytest.raises(RuntimeError, match='failed for 0 repeats'):
        library.probe_exp(0)


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
        return outputs, library._library().native_has_threads()


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


@needs_kernel
def test_states_are_what_the_kernel_writes():
    inputs = draw(length=65, d_state=3)
    _, states = native.forward(*inputs.values(), True, True)
    assert states.shape == native.states_shape(2, 20, 65, 3, 2, 'cpu')
    assert states.shape == (2, 20, 3, 3)
    assert library._library().scan_saved_every() == 32
    y, states = native.forward(*inputs.values(), True, False)
    assert states.numel() == 0
    assert torch.equal(y, run_native(inputs)['y'])
