"""Several configs with several seeds: what is trained, and the table."""

import json

from tiny_run import SMALL_SYNTHETIC

from mmseg_crackssm.analysis import train_seeds
from mmseg_crackssm.analysis.train_seeds import FINISHED, Run, main

SMALL = [
    'default_hooks.time_budget.iterations=1',
    *SMALL_SYNTHETIC,
]


def finish(out, name, seed, **scores):
    """Leave what a finished run leaves."""
    run = Run(f'configs/{name}.py', seed, out / f'{name}_seed{seed}')
    folder = run.work_dir / '20260101_000000' / 'vis_data'
    folder.mkdir(parents=True)
    logged = {f'crack/{name}': value for name, value in scores.items()}
    (folder / 'scalars.json').write_text(json.dumps({**logged, 'step': 9}))
    (run.work_dir / FINISHED).write_text('{"options": ["a=1"]}')


def table_of(text):
    return {
        cells[1]: cells[2:-1]
        for line in text.splitlines()
        if len(cells := [x.strip() for x in line.split('|')]) > 3
    }


def test_means_and_differences_over_common_seeds(tmp_path, capsys):
    for seed, score in enumerate((0.70, 0.71, 0.72)):
        finish(tmp_path, 'plain', seed, F1=score, P=0.5)
    for seed, score in ((1, 0.73), (2, 0.75), (5, 0.1)):
        finish(tmp_path, 'other', seed, F1=score, P=0.25)
    arguments = ['plain.py', 'other.py', 'missing.py', '--table']
    arguments += ['--out', str(tmp_path), '--seeds', '0', '1', '2', '5']
    assert main([*arguments, '--scores', 'F1', 'P']) == 0
    rows = table_of(capsys.readouterr().out)
    assert rows['plain'] == [
        '3',
        '0.7100 ± 0.0100',
        '0.5000 ± 0.0000',
        '',
    ]
    # 0.73 - 0.71 and 0.75 - 0.72; seed 5 has no partner.
    assert rows['other'] == [
        '3',
        '0.5267 ± 0.3696',
        '0.2500 ± 0.0000',
        '+0.0250 ± 0.0071',
    ]
    assert rows['missing'] == ['0', '', '', '']
    report = json.loads((tmp_path / 'seeds.json').read_text())
    assert report['other']['5'] == {'F1': 0.1, 'P': 0.25}
    assert table_of((tmp_path / 'seeds.md').read_text()) == rows


def test_score_that_was_not_measured(tmp_path, capsys):
    finish(tmp_path, 'plain', 0, F1=0.7)
    arguments = ['plain', '--table', '--out', str(tmp_path)]
    assert main([*arguments, '--scores', 'OIS']) == 1
    assert 'no OIS: expected --scores out of F1' in capsys.readouterr().err


def test_trains_what_is_missing(tmp_path, capfd):
    arguments = ['crackssm-das_synthetic-256', '--seeds', '3']
    arguments += ['--out', str(tmp_path), '--cfg-options', *SMALL]
    assert main(arguments) == 0
    captured = capfd.readouterr()
    assert 'run 1 of 1: crackssm-das_synthetic-256_seed3' in captured.err
    assert table_of(captured.out)['crackssm-das_synthetic-256'][0] == '1'
    assert main(arguments) == 0
    assert 'run 1' not in capfd.readouterr().err
    # What was trained in another way is not passed off as this.
    assert main([*arguments, 'randomness.deterministic=True']) == 1
    assert 'give another --out' in capfd.readouterr().err


def test_failed_training_is_not_finished(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_seeds.sys, 'executable', 'false')
    assert main(['plain', '--out', str(tmp_path)]) == 1
    assert 'training plain_seed0 failed' in capsys.readouterr().err
    assert not list(tmp_path.rglob(FINISHED))


def test_equal_names_are_refused(tmp_path, capsys):
    assert main(['a/x.py', 'b/x.py', '--out', str(tmp_path)]) == 1
    assert 'different names' in capsys.readouterr().err
