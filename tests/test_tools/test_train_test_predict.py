"""The commands, as a user starts them; each start costs seconds."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import psutil
import pytest
import torch
from tiny_run import make_images, tiny_config

# Each command imports torch and mmseg anew.
pytestmark = pytest.mark.slow

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
COUNT = 7


def _run(*command, cwd, code=0, **environment) -> str:
    """Run a command; returns its standard output and error.

    One that does not end shows where each of its processes stands.
    """
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env=dict(
            os.environ,
            PYTHONPATH=os.pathsep.join([str(ROOT), str(TESTS)]),
            PYTHON=sys.executable,
            PYTHONFAULTHANDLER='1',
            OMP_NUM_THREADS='1',
            CUDA_VISIBLE_DEVICES='',
            **environment,
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        parent = psutil.Process(process.pid)
        for each in (*parent.children(recursive=True), parent):
            each.send_signal(signal.SIGABRT)
        output, _ = process.communicate()
        pytest.fail(f'{command[0]} did not end:\n{output[-8000:]}')
    assert process.returncode == code, output[-4000:]
    return output


def _tool(name, *arguments, **settings) -> str:
    command = [sys.executable, ROOT / 'tools' / f'{name}.py', *arguments]
    return _run(*command, **settings)


def _losses(work_dir: Path) -> dict[int, float]:
    """Loss by step of all runs in a work dir; later runs win."""
    losses = {}
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            entry = json.loads(line)
            if 'loss' in entry:
                losses[entry['step']] = entry['loss']
    return losses


def _scores(work_dir: Path) -> dict[str, float]:
    """Metrics of the last test in a work dir."""
    files = [
        file
        for file in sorted(work_dir.glob('*/*.json'))
        if file.parent.name == file.stem
    ]
    scores = json.loads(files[-1].read_text())
    return {k: v for k, v in scores.items() if not k.endswith('time')}


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('run')
    # An odd number, so that two processes do not share it evenly.
    make_images(folder, count=COUNT)
    tiny_config(folder).dump(folder / 'tiny.py')
    hooks = [dict(type='KillHook', iteration=5)]
    tiny_config(folder, custom_hooks=hooks).dump(folder / 'killed.py')
    return folder


@pytest.fixture(scope='module')
def trained(folder) -> Path:
    """Checkpoint of an uninterrupted run."""
    _tool('train', 'tiny.py', '--work-dir', 'whole', cwd=folder)
    return folder / 'whole' / 'iter_8.pth'


def test_killed_run_is_resumed_exactly(folder, trained):
    work = ('--work-dir', 'cut')
    _tool('train', 'killed.py', *work, cwd=folder, code=-9)
    _tool('train', 'tiny.py', *work, '--resume', cwd=folder)
    whole, cut = _losses(folder / 'whole'), _losses(folder / 'cut')
    assert sorted(whole) == list(range(1, 9))
    assert whole == cut
    resumed = torch.load(folder / 'cut' / 'iter_8.pth', weights_only=True)
    for name, value in torch.load(trained, weights_only=True)[
        'state_dict'
    ].items():
        assert torch.equal(value, resumed['state_dict'][name]), name


def test_test_and_predict(folder, trained):
    output = _tool(
        'test',
        *('tiny.py', trained, '--work-dir', 'test1'),
        *('--show-dir', 'overlays', '--out', 'out'),
        cwd=folder,
    )
    assert 'mIoU' in output
    for name in ('overlays', 'out/mask', 'out/probability'):
        files = sorted(path.name for path in (folder / name).iterdir())
        assert files == [f'{i}.png' for i in range(COUNT)], name

    (folder / 'img' / 'broken.png').write_bytes(b'no image')
    try:
        output = _run(
            *(sys.executable, '-m', 'mmseg_crackssm.apis.predict'),
            *('tiny.py', trained, 'img', '--out', 'pred', '--batch', '2'),
            cwd=folder,
        )
    finally:
        (folder / 'img' / 'broken.png').unlink()
    assert 'RuntimeWarning' not in output
    assert f'{COUNT} predicted, 1 skipped' in output and 'broken.png' in output
    for i in range(COUNT):
        # The same result by both ways.
        tested = cv2.imread(str(folder / f'out/mask/{i}.png'))
        predicted = cv2.imread(str(folder / f'pred/mask/{i}.png'))
        assert (tested == predicted).all()
        assert (folder / f'pred/overlay/{i}.png').is_file()


def test_two_processes_on_cpu(folder, trained):
    port = str(20000 + os.getpid() % 20000)
    arguments = (trained, '2', '--work-dir', 'test2')
    _run(
        *(ROOT / 'tools' / 'dist_test.sh', 'tiny.py', *arguments),
        cwd=folder,
        PORT=port,
    )
    _tool('test', 'tiny.py', trained, '--work-dir', 'test1', cwd=folder)
    two, one = _scores(folder / 'test2'), _scores(folder / 'test1')
    assert {'mIoU', 'crack/F1', 'crack/ODS', 'crack/OIS'} <= set(one)
    assert two == one

    output = _run(
        *(ROOT / 'tools' / 'dist_train.sh', 'tiny.py', '2'),
        *('--work-dir', 'dist', '--amp'),
        cwd=folder,
        PORT=port,
    )
    assert 'GPU number: 2' in output
    assert sorted(_losses(folder / 'dist')) == list(range(1, 9))
    torch.load(folder / 'dist' / 'iter_8.pth', weights_only=True)


def test_errors_are_one_message(folder, trained, tmp_path):
    tiny_config(tmp_path).dump(tmp_path / 'nodata.py')
    output = _tool('train', 'nodata.py', cwd=tmp_path, code=1)
    assert 'Traceback' not in output
    last = output.strip().splitlines()[-1]
    assert last.startswith('Error: ') and str(tmp_path) in last
    assert not re.search(r'(?i)system environment', output)

    foreign = tmp_path / 'foreign.pth'
    torch.save(dict(state_dict=dict(w=torch.ones(1))), foreign)
    output = _tool('test', folder / 'tiny.py', foreign, cwd=tmp_path, code=1)
    assert 'Traceback' not in output
    assert 'does not fit' in output.strip().splitlines()[-1]
