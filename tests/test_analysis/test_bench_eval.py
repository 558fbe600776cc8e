import runpy
import sys

import pytest

from mmseg_crackssm.analysis import bench_eval


def test_ratio(capsys, monkeypatch):
    monkeypatch.setattr(
        bench_eval,
        'make_pairs',
        lambda *args, make=bench_eval.make_pairs: make(*args, size=64),
    )
    assert bench_eval.main(['--images', '2', '--rounds', '1']) == 0
    assert 'ratio: ' in capsys.readouterr().out


def test_tells_of_a_difference(capsys, monkeypatch, tmp_path):
    pairs = bench_eval.make_pairs(tmp_path, count=1, size=64)
    right = bench_eval.score_in_one_pass(pairs)
    assert right == pytest.approx(bench_eval.score_by_thresholds(pairs))
    monkeypatch.setattr(
        bench_eval, 'score_in_one_pass', lambda pairs: {**right, 'OIS': 0.1}
    )
    monkeypatch.setattr(bench_eval, 'make_pairs', lambda *args: pairs)
    assert bench_eval.main(['--images', '1']) == 1
    assert 'differ in OIS' in capsys.readouterr().err


def test_script(repo_root, monkeypatch, capsys):
    tool = repo_root / 'tools' / 'analysis' / 'bench_eval.py'
    monkeypatch.setattr(sys, 'argv', [str(tool), '--images', '0'])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(tool), run_name='__main__')
    assert end.value.code == 1
    assert '--images' in capsys.readouterr().err
