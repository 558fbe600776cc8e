"""The main job of the package: real configs from data to predictions."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import mmseg
import numpy as np
import pytest
import torch

from mmseg_crackssm.apis import (
    init_model,
    predict_files,
    test_model,
    train_model,
)

# Named so that pytest does not take it for a test.
score_model = test_model
del test_model

pytestmark = pytest.mark.slow

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def in_process_loading() -> dict:
    """Options that load data without worker processes."""
    options = {}
    for loader in LOADERS:
        options[f'{loader}.num_workers'] = 0
        options[f'{loader}.persistent_workers'] = False
    return options


def last_checkpoint(work_dir) -> str:
    return (work_dir / 'last_checkpoint').read_text().strip()


@pytest.fixture
def fake_tut(tmp_path):
    """TUT's release in miniature."""
    root = tmp_path / 'TUT'
    rng = np.random.default_rng(0)
    for split, count in (('train', 2), ('val', 2), ('test', 3)):
        images, labels = root / f'{split}_img', root / f'{split}_lab'
        images.mkdir(parents=True)
        labels.mkdir()
        for i in range(count):
            image = rng.integers(90, 160, (64, 48, 3), dtype=np.uint8)
            mask = np.zeros((64, 48), dtype=np.uint8)
            cv2.line(mask, (5, 5 + i), (40, 60), 255, 3)
            image[mask > 0] = 30
            cv2.imwrite(str(images / f'{i:03d}.jpg'), image)
            cv2.imwrite(str(labels / f'{i:03d}.png'), mask)
    return root


def test_tut_layout(fake_tut, tmp_path):
    options = in_process_loading() | {
        'train_dataloader.batch_size': 2,
        'train_cfg.max_iters': 1,
        'train_cfg.val_interval': 1,
        'default_hooks.checkpoint.interval': 1,
    }
    for loader in LOADERS:
        options[f'{loader}.dataset.data_root'] = str(fake_tut)
    config = 'crackssm/crackssm_tut-448.py'
    work_dir = tmp_path / 'run'
    train_model(config, work_dir=str(work_dir), cfg_options=options)
    scores = score_model(
        config,
        last_checkpoint(work_dir),
        work_dir=str(work_dir),
        cfg_options=options,
    )
    assert 0 <= scores['crack/F1'] <= 1
    # mmseg's own table runs beside the crack protocol.
    assert {'mIoU', 'mFscore'} <= set(scores)


def test_missing_tut_is_one_clear_message(repo_root, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            str(repo_root / 'tools' / 'train.py'),
            'crackssm/crackssm_tut-448.py',
        ],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(repo_root)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert 'TUT' in done.stderr and 'train_img' in done.stderr
    assert 'Traceback' not in done.stderr


def test_real_cracks(crack_data_dir, repo_root, tmp_path):
    """CFD from the release to predictions, in a few iterations."""
    data_root = tmp_path / 'CFD'
    subprocess.run(
        [
            sys.executable,
            str(repo_root / 'tools' / 'dataset_converters' / 'cfd.py'),
            str(crack_data_dir / 'cfd'),
            str(data_root),
        ],
        env=dict(os.environ, PYTHONPATH=str(repo_root)),
        check=True,
        capture_output=True,
        timeout=300,
    )
    options = in_process_loading() | {
        'default_hooks.time_budget.seconds': 4,
        'val_dataloader.dataset.indices': 2,
        'test_dataloader.dataset.indices': 2,
    }
    for loader in LOADERS:
        options[f'{loader}.dataset.data_root'] = str(data_root)
    config = 'crackssm/crackssm_cfd-320.py'
    work_dir = tmp_path / 'run'
    train_model(config, work_dir=str(work_dir), cfg_options=options)
    checkpoint = last_checkpoint(work_dir)
    torch.load(checkpoint, weights_only=True)  # holds plain values alone

    model = init_model(config, checkpoint, 'cpu')
    source = data_root / 'images' / '001.jpg'
    image = cv2.imread(str(source))[:101, :133]
    cv2.imwrite(str(tmp_path / 'odd.png'), image)
    summary = predict_files(model, tmp_path / 'odd.png', tmp_path / 'out')
    assert summary.done == [tmp_path / 'odd.png']
    mask = cv2.imread(str(tmp_path / 'out' / 'mask' / 'odd.png'), -1)
    assert mask.shape == (101, 133)
    assert set(np.unique(mask)) <= {0, 255}


def test_tools_of_mmseg_run_the_configs(repo_root, tmp_path):
    """``custom_imports`` in the config is all that they need."""
    tools = Path(mmseg.__file__).parent / '.mim' / 'tools'
    config = str(
        repo_root / 'configs' / 'crackssm' / 'crackssm_synthetic-256.py'
    )
    options = in_process_loading() | {'train_cfg.max_iters': 1}
    for loader in LOADERS:
        options[f'{loader}.dataset.size'] = '"(32,32)"'
        options[f'{loader}.dataset.num_samples'] = 4
    options = [f'{key}={value}' for key, value in options.items()]
    for arguments in (
        ['train.py', config],
        ['test.py', config, 'run/iter_1.pth'],
    ):
        done = subprocess.run(
            [
                sys.executable,
                str(tools / arguments[0]),
                *arguments[1:],
                '--work-dir',
                'run',
                '--cfg-options',
                *options,
            ],
            cwd=tmp_path,
            env=dict(os.environ, PYTHONPATH=str(repo_root)),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert 'crack/F1' in done.stdout + done.stderr


def test_demo(repo_root, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            str(repo_root / 'tools' / 'demo.py'),
            '--seconds',
            '3',
            '--out',
            'demo',
        ],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(repo_root)),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    path = done.stdout.rsplit('Predictions:', 1)[1].strip()
    sheet = cv2.imread(path)
    assert sheet.shape == (4 * 264, 2 * (3 * 256 + 8), 3)
    assert '  F1 ' in done.stdout
