import json
import runpy
import sys

import pytest

from mmseg_crackssm.analysis.benchmark_table import format_table, main
from mmseg_crackssm.analysis.paper_results import PAPER_RESULTS
from mmseg_crackssm.apis import load_config


def make_run(folder, name, f1, step=None, bounds=True):
    """A work dir with a log of training, as mmengine writes it."""
    run = folder / name
    log = run / '20261125_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    scores = {'crack/F1': f1, 'crack/P': 0.5, 'mIoU': 70.0, 'step': step}
    if bounds:
        scores |= {'crack/F1_low': f1 - 0.1, 'crack/F1_high': f1 + 0.1}
    lines = [
        {'loss': 1.0, 'step': 1},
        {**scores, 'crack/F1': 0.1},
        scores,
        {'loss': 0.5, 'step': 99},
    ]
    log.write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
    config = load_config('fast-scnn_cfd-320').pretty_text
    (run / f'{name}.py').write_text(config)
    return run


@pytest.fixture
def runs(tmp_path):
    return [
        make_run(tmp_path, 'one', 0.6, step=120),
        make_run(tmp_path, 'two', 0.7, bounds=False),
    ]


def run_table(capsys, *args):
    assert main([*map(str, args)]) == 0
    return capsys.readouterr().out.splitlines()


def test_markdown(runs, capsys):
    lines = run_table(capsys, *runs, '--scores', 'F1', 'P', 'OIS')
    assert lines == [
        '| model | params | MACs | iterations | F1 | P | OIS | source |',
        '| --- | --- | --- | --- | --- | --- | --- | --- |',
        '| one |  |  | 120 | 0.6000 (0.5000 to 0.7000) | 0.5000 |  '
        '| measured |',
        '| two |  |  |  | 0.7000 | 0.5000 |  | measured |',
    ]


def test_paper_rows_stand_beside_and_say_so(runs, capsys):
    args = ('--paper', 'TUT', '--no-intervals', '--format', 'csv')
    lines = run_table(capsys, runs[0], *args)
    assert lines[1].startswith('one,,,120,0.6000,0.5000')
    assert lines[1].endswith('measured')
    assert lines[2].startswith('CrackSSM,2.95 M,4.69 G,,0.8450')
    assert 'CVPR 2026' in lines[2]


def test_size_and_figure(runs, tmp_path, capsys):
    figure = tmp_path / 'new' / 'figure.png'
    args = ('--shape', '64', '64', '--figure', figure)
    lines = run_table(capsys, *runs, *args, '--paper', 'DeepCrack')
    assert '| 1.40 M |' in lines[2]
    assert figure.stat().st_size > 1000


def test_latex_escapes():
    text = format_table([['a_b', 'F1'], ['50 %', '1']], 'latex')
    assert r'a\_b & F1 \\' in text and r'50 \% & 1 \\' in text
    assert text.count('rule') == 3


def test_results_of_eval_masks(tmp_path, capsys):
    path = tmp_path / 'other.json'
    report = {'F1': 0.5, 'intervals': {'F1': [0.4, 0.6]}, 'num_images': 3}
    path.write_text(json.dumps(report))
    lines = run_table(capsys, path, '--scores', 'F1')
    row = '| other |  |  |  | 0.5000 (0.4000 to 0.6000) | measured |'
    assert lines[2] == row


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (('nowhere',), 'neither a work dir nor a file'),
        (('{}',), 'holds no scores'),
        (('{}/bad.json',), 'no result of eval_masks.py'),
        (('{}/one', '--paper', 'CFD'), 'one of Crack500'),
        (('{}/one', '--figure', 'x.png'), '--shape'),
    ],
)
def test_bad_arguments(runs, tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'bad.json').write_text('[1]')
    assert main([arg.format(tmp_path) for arg in args]) == 1
    assert message in capsys.readouterr().err


def test_paper_results_are_fractions_with_a_source():
    assert len(PAPER_RESULTS) > 30
    for result in PAPER_RESULTS:
        assert result.source and result.scores
        assert all(0.4 < score < 1 for score in result.scores.values())


def test_script(repo_root, runs, monkeypatch):
    tool = repo_root / 'tools' / 'benchmark_table.py'
    monkeypatch.setattr(sys, 'argv', [str(tool), str(runs[0])])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(tool), run_name='__main__')
    assert end.value.code == 0
