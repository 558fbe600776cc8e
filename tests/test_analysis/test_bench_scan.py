import json
import math
import runpy
import sys

import pytest
import torch

from mmseg_crackssm.analysis import (
    measure_scan,
    scan_baselines,
    scan_limit,
)
from mmseg_crackssm.analysis.bench_scan import main
from mmseg_crackssm.analysis.measure import Timing
from mmseg_crackssm.analysis.measure_scan import COMPARISONS
from mmseg_crackssm.analysis.scan_baselines import BASELINES, missing_baseline
from mmseg_crackssm.analysis.scan_limit import (
    BOTH,
    FORWARD,
    Limit,
    Probe,
    ScanCase,
    make_limit,
    make_probes,
)
from mmseg_crackssm.ops import available_backends, native

GRADIENTS = {'u', 'delta', 'A', 'B', 'C', 'D', 'delta_bias'}
CASE = ('--case', '1', '4', '9', '2', '2')


@pytest.fixture(autouse=True)
def short_probes(monkeypatch):
    monkeypatch.setattr(scan_limit, 'COPY_BYTES', 2**16)
    monkeypatch.setattr(scan_limit, 'NATIVE_REPEATS', 2)
    monkeypatch.setattr(scan_limit, 'TORCH_REPEATS', 1)


def run_json(capsys, *args):
    assert main([*args, '--json']) == 0
    return json.loads(capsys.readouterr().out)


def test_json(capsys):
    report = run_json(
        capsys, *CASE, '--case', '2', '3', '8', '1', '1', '--repeat', '4'
    )
    assert report['machine']['threads'] == 1
    assert report['dtype'] == 'float32'
    first, second = report['cases']
    assert first['case'] == [1, 4, 9, 2, 2]
    assert second['case'] == [2, 3, 8, 1, 1]
    limit = first['limit']
    assert limit['exps_per_second'] > 0
    assert limit['copy_bytes_per_second'] > 0
    assert limit['exp_source']
    measured = {(row['backend'], row['direction']) for row in first['rows']}
    names = {*available_backends(), 'mamba_loop'}
    if not missing_baseline('pscan'):
        names.add('pscan')
    assert measured == {
        (name, direction) for name in names for direction in (FORWARD, BOTH)
    } - {('reference', BOTH), ('mamba_loop', BOTH)}
    for row in first['rows']:
        name = row['backend']
        assert row['rounds'] == (3 if name in COMPARISONS else 4)
        assert 0 < row['min_s'] <= row['median_s']
        assert set(row['speedups']) == names - {name}
        assert min(row['speedups'].values()) > 0
        assert row['limit_s'] == max(row['exp_s'], row['copy_s']) > 0
        assert math.isfinite(row['fraction_of_limit'])
        expected = GRADIENTS if row['direction'] == BOTH else set()
        assert set(row['errors']) == {'y'} | expected
        assert max(row['errors'].values()) < 1e-5
    medians = {
        (row['backend'], row['direction']): row['median_s']
        for row in first['rows']
    }
    both = next(
        row
        for row in first['rows']
        if (row['backend'], row['direction']) == ('torch', BOTH)
    )
    assert both['speedups']['mamba_loop'] == pytest.approx(
        medians['mamba_loop', FORWARD] / medians['torch', BOTH]
    )


def test_table(capsys):
    assert main([*CASE, '--repeat', '1', '--backends', 'torch']) == 0
    captured = capsys.readouterr()
    assert 'B 1 D 4 L 9 N 2 G 2, float32' in captured.out
    assert 'G exp/s' in captured.out
    assert 'forward+backward' in captured.out
    assert '| reference' not in captured.out
    assert '1 4 9 2 2: torch' in captured.err


def test_table_of_comparisons(capsys):
    args = ('--repeat', '1', '--backends', 'torch', 'mamba_loop')
    assert main([*CASE, *args]) == 0
    out = capsys.readouterr().out
    assert 'mamba_loop takes' in out
    # Times and errors of both, but ratios of the backend alone.
    assert out.count('\n| mamba_loop') == 1
    assert out.count('\n| torch') == 4


def test_more_threads(capsys):
    args = ('--backends', 'torch', 'reference', '--repeat', '1')
    report = run_json(capsys, *CASE, *args, '--threads', '2', '1', '2')
    assert report['machine']['threads'] == 2
    (on_one,) = report['cases'][0]['on_threads']
    assert on_one['threads'] == 1
    # Not of the comparison.
    assert set(on_one['scans']) == {f'torch {x}' for x in (FORWARD, BOTH)}
    assert {'copy', 'torch'} <= set(on_one['probes'])
    assert min(*on_one['scans'].values(), *on_one['probes'].values()) > 0
    assert main([*CASE, *args, '--threads', '2', '1']) == 0
    out = capsys.readouterr().out
    assert 'on 1 threads' in out and 'the machine: exponentials' in out


def test_more_threads_are_used(monkeypatch):
    seen = []
    monkeypatch.setattr(
        measure_scan,
        'run_scan',
        lambda inputs, **_: (
            seen.append(torch.get_num_threads()) or {'y': inputs['u'].detach()}
        ),
    )
    monkeypatch.setattr(
        measure_scan, 'measure_errors', lambda *_, **__: {'torch': {'y': 0}}
    )
    before = torch.get_num_threads()
    measure_scan.measure_case(
        ScanCase(1, 4, 9, 2, 2),
        ['torch'],
        probes=make_probes(torch.device('cpu'), dtype=torch.float32),
        rounds=1,
        more_threads=(before + 1,),
    )
    assert {before, before + 1} == set(seen)
    assert torch.get_num_threads() == before


def test_work_per_thread_counts_as_often_as_there_are_threads():
    probes = {
        'copy': Probe(lambda: None, amount=1),
        'exp': Probe(lambda: None, amount=1, per_thread=True),
    }
    timings = {name: Timing((2.0,)) for name in probes}
    timings |= {f'{name} on 3': Timing((1.6,)) for name in probes}
    before = torch.get_num_threads()
    found = measure_scan._compare_threads(timings, (), probes, 3)
    assert found['probes'] == {
        'copy': pytest.approx(1.25),
        'exp': pytest.approx(1.25 * 3 / before),
    }


@pytest.mark.parametrize('name', BASELINES)
def test_baselines_compute_the_scan(name):
    missing = missing_baseline(name)
    if missing:
        pytest.skip(missing)
    inputs = measure_scan.make_inputs(
        ScanCase(2, 6, 37, 3, 2), dtype=torch.float64
    )
    dy = torch.randn(2, 6, 37, dtype=torch.float64)
    results = [
        measure_scan.run_scan(inputs, backend=backend, direction=BOTH, dy=dy)
        for backend in (name, 'reference')
    ]
    for key, value in results[1].items():
        torch.testing.assert_close(results[0][key], value, msg=key)


def test_missing_baseline_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(scan_baselines, 'find_spec', lambda name: None)
    assert main([*CASE, '--backends', 'pscan']) == 1
    assert 'pip install --no-deps mambapy' in capsys.readouterr().err


def test_half_precision_is_no_error_of_rounded_inputs(capsys):
    report = run_json(capsys, *CASE, '--dtype', 'bfloat16', '--repeat', '1')
    for row in report['cases'][0]['rows']:
        # Rounding the result to 8 bits alone.
        assert 0 < row['errors']['y'] <= 2**-8


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (('--backends', 'torch', 'nope'), "got 'nope'"),
        (('--backends', 'mamba_ssm'), 'expects device cuda'),
        (('--backends', 'auto'), "name a backend, not 'auto'"),
        (('--repeat', '0'), '--repeat: expected at least 1'),
        (('--threads', '0'), '--threads: expected at least 1'),
        (('--threads', '1', '0'), '--threads: expected at least 1'),
        (('--device', 'nowhere'), '--device: expected'),
        (('--case', '1', '3', '8', '1', '2'), 'D a multiple of G'),
        (('--case', '1', '3', '0', '1', '1'), 'of at least 1'),
    ],
)
def test_bad_arguments_are_one_line(capsys, args, message):
    assert main([*args]) == 1
    captured = capsys.readouterr()
    assert captured.out == ''
    assert message in captured.err
    assert captured.err.startswith('Error: ')
    assert captured.err.count('\n') == 1


needs_kernel = pytest.mark.skipif(
    not native.is_available(), reason='the C kernel is not built'
)


@needs_kernel
def test_forced_instruction_set(capsys):
    before = native.instruction_set()
    args = (*CASE, '--repeat', '1', '--backends', 'native', '--isa')
    report = run_json(capsys, *args, 'baseline')
    assert report['native_isa'] == 'baseline'
    assert native.instruction_set() == before
    assert main([*args, 'mmx']) == 1
    assert "got 'mmx'" in capsys.readouterr().err


@needs_kernel
def test_probes_leave_the_instruction_set(monkeypatch):
    monkeypatch.setattr(native, 'probe_exp', lambda _: sets.append(1) or 7)
    sets = []
    before = native.instruction_set()
    native.set_instruction_set('baseline')
    try:
        probes = make_probes(torch.device('cpu'), dtype=torch.float32)
        assert native.instruction_set() == 'baseline'
    finally:
        native.set_instruction_set(before)
    assert 'native baseline' in probes and len(sets) >= 1
    assert probes['native baseline'].amount == 7
    doubles = make_probes(torch.device('cpu'), dtype=torch.float64)
    assert set(doubles) == {'copy', 'torch'}


def test_limit_takes_the_fastest_exponential():
    probes = {
        'copy': Probe(lambda: None, amount=100),
        'slow': Probe(lambda: None, amount=10),
        'fast': Probe(lambda: None, amount=30),
    }
    timings = {name: Timing((0.5, 2.0, 0.1)) for name in probes}
    assert make_limit(probes, timings) == Limit(
        exps_per_second=60.0, exp_source='fast', copy_bytes_per_second=200.0
    )
    only_copy = make_limit({'copy': probes['copy']}, timings)
    assert only_copy.exps_per_second is None


def test_limit_by_hand():
    case = ScanCase(2, 6, 10, 4, 3)
    limit = Limit(1e3, 'x', copy_bytes_per_second=1e4)
    # 120 channel-steps, 5 exponentials each; B and C hold 240 numbers each.
    assert limit.seconds(case, FORWARD, itemsize=4) == {
        'exp_s': pytest.approx(0.6),
        'copy_s': pytest.approx((3 * 120 + 2 * 240) * 4 / 1e4),
        'limit_s': pytest.approx(0.6),
    }
    both = limit.seconds(case, BOTH, itemsize=8)
    assert both['exp_s'] == pytest.approx(1.2)
    assert both['copy_s'] == pytest.approx((8 * 120 + 6 * 240) * 8 / 1e4)
    assert both['limit_s'] == both['copy_s']
    gpu = Limit(None, None, copy_bytes_per_second=1e4)
    assert gpu.seconds(case, FORWARD, itemsize=4)['exp_s'] is None
    assert gpu.seconds(case, FORWARD, itemsize=4)['limit_s'] > 0


def test_errors_show_a_wrong_backend(monkeypatch):
    inputs = measure_scan.make_inputs(ScanCase(1, 4, 9, 2, 2))
    dy = torch.ones_like(inputs['u'])
    right = measure_scan.measure_errors(inputs, ['torch'], dy=dy)['torch']
    scan = measure_scan.selective_scan

    def wrong(*, backend, **arguments):
        if backend == 'torch':
            arguments['D'] = 1.5 * arguments['D']
        return scan(backend=backend, **arguments)

    monkeypatch.setattr(measure_scan, 'selective_scan', wrong)
    errors = measure_scan.measure_errors(inputs, ['torch'], dy=dy)['torch']
    assert errors['y'] > 0.05 and errors['D'] == pytest.approx(0.5)
    assert errors['B'] == right['B'] < 1e-6


def test_errors_are_taken_over_the_first_steps(monkeypatch):
    monkeypatch.setattr(measure_scan, 'ERROR_STEPS', 5)
    inputs = measure_scan.make_inputs(ScanCase(1, 4, 9, 2, 2))
    with torch.no_grad():
        inputs['u'][..., 5:] = float('nan')
    errors = measure_scan.measure_errors(
        inputs, ['torch', 'reference'], dy=torch.ones_like(inputs['u'])
    )
    assert max(errors['torch'].values()) < 1e-5
    assert set(errors['reference']) == {'y'}


def test_script(repo_root, monkeypatch, capsys):
    tool = repo_root / 'tools' / 'analysis' / 'bench_scan.py'
    monkeypatch.setattr(sys, 'argv', [str(tool), '--repeat', '0'])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(tool), run_name='__main__')
    assert end.value.code == 1
    assert '--repeat' in capsys.readouterr().err
