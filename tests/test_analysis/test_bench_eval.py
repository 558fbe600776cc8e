import runpy
import sys

import pytest

from mmseg_crackssm.analysis import bench_eval


@pytest.fixture
def small_pairs(monkeypatch):
    monkeypatch.setattr(
        bench_eval,
        'make_pairs',
        lambda *args, make=bench_eval.make_pairs: make(*args, size=64),
    )


def test_ratio(small_pairs, capsys):
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


SCRIPT = """
import glob

import cv2


def get_image_pairs(folder, suffix_gt, suffix_pred):
    labels = sorted(glob.glob(f'{folder}/*{suffix_gt}.png'))
    predictions = [x.replace(suffix_gt, suffix_pred) for x in labels]
    assert cv2.imread(predictions[0], 0).any()
    return predictions, labels, predictions, labels


def cal_prf_metrics(predictions, labels):
    assert len(predictions) == len(labels) == 2


def cal_mIoU_metrics(predictions, labels):
    return MIOU


cal_ODS_metrics = cal_OIS_metrics = cal_mIoU_metrics
"""


def test_published_script(small_pairs, capsys, monkeypatch, tmp_path):
    script = tmp_path / 'evaluate.py'
    script.write_text(SCRIPT.replace('MIOU', '0.5'))
    same = {'mIoU': 0.5, 'ODS': 0.5, 'OIS': 0.5}
    arguments = ['--images', '2', '--rounds', '1', '--script', str(script)]
    for name in ('score_in_one_pass', 'score_by_thresholds'):
        monkeypatch.setattr(bench_eval, name, lambda pairs: same)
    assert bench_eval.main(arguments) == 0
    assert 'published script: ' in capsys.readouterr().out

    script.write_text(SCRIPT.replace('MIOU', '0.7'))
    assert bench_eval.main(arguments) == 1
    assert 'published script and eval_masks differ' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('gone.py', None, 'is not a file'),
        ('evaluate.py', 'cal_prf_metrics = 1', 'no get_image_pairs, cal_mIoU'),
        ('evaluate.txt', '', 'not a Python file'),
    ],
)
def test_wrong_script(name, text, message, capsys, tmp_path):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    assert bench_eval.main(['--script', str(path)]) == 1
    assert message in capsys.readouterr().err


def test_script(repo_root, monkeypatch, capsys):
    tool = repo_root / 'tools' / 'analysis' / 'bench_eval.py'
    monkeypatch.setattr(sys, 'argv', [str(tool), '--images', '0'])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(tool), run_name='__main__')
    assert end.value.code == 1
    assert '--images' in capsys.readouterr().err
