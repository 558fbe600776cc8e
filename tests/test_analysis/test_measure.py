import sys

import numpy as np
import pytest
import torch

from mmseg_crackssm.analysis.measure import (
    Timing,
    check_at_least_one,
    find_device,
    fit_exponent,
    interleave,
    peak_extra_bytes,
    threads_of_torch,
)
from mmseg_crackssm.apis.errors import UsageError


def test_rounds_interleave_and_turn_around():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in 'abc'}
    timings = interleave(calls, rounds=3, warmup=1)
    # The warm-up is round -1.
    assert ''.join(order) == 'cba' + 'abc' + 'cba' + 'abc'
    assert list(timings) == ['a', 'b', 'c']
    assert all(len(timing.seconds) == 3 for timing in timings.values())


def test_slow_calls_run_in_fewer_rounds():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in 'ab'}
    timings = interleave(calls, rounds=4, warmup=3, fewer={'b': 2})
    assert order.count('a') == 7
    assert order.count('b') == 4
    assert len(timings['a'].seconds) == 4
    assert len(timings['b'].seconds) == 2


def test_time_is_that_of_the_call(monkeypatch):
    clock = [0.0]

    def work(seconds):
        clock[0] += seconds

    monkeypatch.setattr('time.perf_counter', lambda: clock[0])
    timings = interleave(
        {'long': lambda: work(3.0), 'short': lambda: work(1.0)}, rounds=2
    )
    assert timings['long'].seconds == (3.0, 3.0)
    assert timings['short'].seconds == (1.0, 1.0)


def test_summary():
    summary = Timing((1.0, 4.0, 2.0, 3.0)).summary()
    assert summary == {
        'median_s': 2.5,
        'min_s': 1.0,
        'p90_s': pytest.approx(3.7),
        'spread': pytest.approx(1.2),
        'rounds': 4,
    }


needs_linux = pytest.mark.skipif(
    not sys.platform.startswith('linux'), reason='reads /proc'
)


# What the rest of a test process does to its own memory meanwhile.
TOLERANCE = 2**23


@needs_linux
@pytest.mark.parametrize('allocate', (torch.ones, np.ones))
def test_peak_memory_counts_what_is_freed_within(allocate):
    def call():
        first = allocate(2**24)
        del first
        return allocate(2**22)

    size = allocate(1).nbytes
    # Warm, and twice: what a call freed must not hide the next.
    call()
    for _ in range(2):
        extra = peak_extra_bytes(call, device='cpu')
        # malloc may keep the first block while it hands out the second.
        least, most = 2**24 * size, (2**24 + 2**22) * size
        assert least - TOLERANCE < extra < most + TOLERANCE


@needs_linux
def test_peak_memory_of_before_does_not_count():
    torch.ones(2**24)
    assert peak_extra_bytes(lambda: None, device='cpu') < TOLERANCE


def test_peak_memory_is_unknown_where_it_cannot_be_told(monkeypatch):
    def refuse(self, text):
        raise PermissionError(self)

    monkeypatch.setattr('pathlib.Path.write_text', refuse)
    assert peak_extra_bytes(lambda: None, device='cpu') is None


@pytest.mark.parametrize('exponent', (0.5, 1.0, 2.0))
def test_exponent_of_known_data(exponent):
    sizes = [64, 256, 1024]
    costs = [3e-4 * size**exponent for size in sizes]
    assert fit_exponent(sizes, costs) == pytest.approx(exponent)


def test_exponent_needs_two_sizes():
    with pytest.raises(ValueError, match='two different sizes'):
        fit_exponent([4, 4], [1.0, 2.0])


def test_threads_are_restored():
    before = torch.get_num_threads()
    with threads_of_torch(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize('name', ('tpu', 'meta', 'cuda:99'))
def test_device_that_is_not_there(name):
    with pytest.raises(UsageError, match='--device'):
        find_device(name)
    assert find_device('cpu') == torch.device('cpu')


def test_numbers_below_one_name_the_option():
    check_at_least_one(batch=1)
    with pytest.raises(UsageError, match='--some-option: .* got 0'):
        check_at_least_one(batch=1, some_option=0)
