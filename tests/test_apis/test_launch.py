import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from tiny_run import make_images, tiny_config

from mmseg_crackssm import apis
from mmseg_crackssm.apis import launch
from mmseg_crackssm.apis.errors import (
    UsageError,
    check_output_folder,
    run_cli,
)
from mmseg_crackssm.apis.launch import (
    check_data,
    enable_amp,
    end_launch,
    prepare_launch,
    set_seed,
)


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(launch, 'get_device', lambda: 'cpu')
    monkeypatch.setenv('LOCAL_RANK', '0')


def test_no_launcher_changes_nothing_but_the_name(on_cpu):
    cfg = Config(dict(model=dict(norm_cfg=dict(type='SyncBN'))))
    prepare_launch(cfg, 'none')
    assert cfg.model.norm_cfg.type == 'SyncBN'
    assert cfg.launcher == 'none' and 'model_wrapper_cfg' not in cfg


def test_cpu_gets_gloo_and_plain_bn(on_cpu, monkeypatch):
    started = []
    monkeypatch.setattr(dist, 'init_process_group', started.append)
    monkeypatch.setenv('RANK', '0')
    heads = [dict(norm_cfg=dict(type='SyncBN'))]
    cfg = Config(dict(model=dict(heads=heads), sync_bn='torch'))
    prepare_launch(cfg, 'pytorch')
    assert started == ['gloo']
    assert cfg.model.heads[0].norm_cfg.type == 'BN'
    assert 'sync_bn' not in cfg
    assert cfg.model_wrapper_cfg.device_ids is None


def test_launchers_that_cannot_work_are_refused(on_cpu, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    cfg = Config(dict(model=dict()))
    with pytest.raises(UsageError, match='dist_train.sh'):
        prepare_launch(cfg, 'pytorch')
    with pytest.raises(UsageError, match='needs a GPU'):
        prepare_launch(cfg, 'slurm')


_LAUNCHED = """
import atexit
import logging
import multiprocessing
import sys
import time

import torch
import torch.distributed as dist
from mmseg_crackssm.apis.launch import end_launch

store = dist.FileStore(sys.argv[1], 1)
dist.init_process_group('gloo', store=store, rank=0, world_size=1)
# What destructors at the interpreter's end would trip over: the group is in
# use, and a reference that nothing collects holds it.
atexit.register(print, 'torn down')
torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
work = dist.all_reduce(torch.ones(100_000), async_op=True)
child = multiprocessing.get_context('fork').Process(
    target=time.sleep, args=(600,), daemon=True
)
child.start()
logging.basicConfig(filename=sys.argv[2])
logging.warning('logged')
print('printed')
end_launch(3)
print('not reached')
"""


def test_end_of_a_gloo_group_ends_the_process(tmp_path):
    log = tmp_path / 'log'
    done = subprocess.run(
        [sys.executable, '-c', _LAUNCHED, tmp_path / 'store', log],
        # A pipe that the child inherits: it must not outlive its parent.
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout.endswith('printed\n')
    assert 'terminate called' not in done.stderr
    assert 'logged' in log.read_text()


def test_end_of_another_group_destroys_it(monkeypatch):
    destroyed = []
    monkeypatch.setattr(dist, 'is_initialized', lambda: True)
    monkeypatch.setattr(dist, 'get_backend', lambda: 'nccl')
    monkeypatch.setattr(
        dist, 'destroy_process_group', lambda: destroyed.append(True)
    )
    end_launch(0)
    assert destroyed == [True]


def test_end_without_a_group_is_nothing():
    assert not dist.is_initialized()
    end_launch(1)


def test_local_rank_of_the_environment_wins(on_cpu, monkeypatch):
    cfg = Config(dict(model=dict()))
    monkeypatch.setenv('LOCAL_RANK', '3')
    prepare_launch(cfg, 'none', local_rank=1)
    assert os.environ['LOCAL_RANK'] == '3'


@pytest.mark.parametrize(
    ('device', 'expected'),
    [
        ('cpu', dict(type='BFloat16OptimWrapper')),
        ('cuda', dict(type='AmpOptimWrapper', loss_scale='dynamic')),
    ],
)
def test_amp_by_device(monkeypatch, device, expected):
    monkeypatch.setattr(launch, 'get_device', lambda: device)
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper')))
    enable_amp(cfg)
    assert cfg.optim_wrapper == expected
    cfg.optim_wrapper = dict(type='BFloat16OptimWrapper')
    enable_amp(cfg)
    assert cfg.optim_wrapper == dict(type='BFloat16OptimWrapper')
    cfg.optim_wrapper = dict(type='OtherWrapper')
    with pytest.raises(UsageError, match='OtherWrapper'):
        enable_amp(cfg)


def test_seed_keeps_the_other_settings():
    cfg = Config(dict(randomness=dict(seed=1, deterministic=True)))
    set_seed(cfg, None)
    assert cfg.randomness.seed == 1
    set_seed(cfg, 0)
    assert cfg.randomness == dict(seed=0, deterministic=True)


def test_missing_data_is_found_early(tmp_path):
    cfg = tiny_config(tmp_path)
    with pytest.raises(FileNotFoundError):
        check_data(cfg, ('train_dataloader',))
    make_images(tmp_path)
    check_data(cfg, ('train_dataloader', 'val_dataloader', 'absent'))


def test_wrong_data_is_a_usage_error(tmp_path):
    make_images(tmp_path)
    (tmp_path / 'lab' / '0.png').unlink()
    cfg = tiny_config(tmp_path)
    cfg.train_dataloader.dataset.type = 'CrackDataset'
    with pytest.raises(UsageError, match='train_dataloader: .*0.png'):
        check_data(cfg, ('train_dataloader',))


def test_folders_that_cannot_be_written(tmp_path, monkeypatch):
    check_output_folder(tmp_path / 'new' / 'deeper', '--out')
    assert not (tmp_path / 'new').exists()
    (tmp_path / 'file').touch()
    for name in ('file', 'file/deeper'):
        with pytest.raises(UsageError, match='--out .*is a file'):
            check_output_folder(tmp_path / name, '--out')
    # The tests may run as root, whom no permission stops.
    monkeypatch.setattr(os, 'access', lambda path, mode: False)
    with pytest.raises(UsageError, match='--out .*no permission'):
        check_output_folder(tmp_path / 'new', '--out')


def test_train_and_test_check_their_folders_first(tmp_path):
    cfg = tiny_config(tmp_path)
    (tmp_path / 'file').touch()
    taken = str(tmp_path / 'file')
    with pytest.raises(UsageError, match='--work-dir'):
        apis.train_model(cfg, work_dir=taken)
    for option in ('work_dir', 'out', 'show_dir'):
        with pytest.raises(UsageError, match=option.replace('_', '-')):
            apis.test_model(cfg, 'none.pth', **{option: taken})


def test_cli_shows_mendable_errors_alone(capsys, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)

    def fail(error):
        raise error

    assert run_cli(lambda: fail(FileNotFoundError('no data'))) == 1
    assert capsys.readouterr().err == 'Error: no data\n'
    assert run_cli(lambda: fail(UsageError('wrong'))) == 1
    assert capsys.readouterr().err == 'Error: wrong\n'
    monkeypatch.setenv('RANK', '1')
    assert run_cli(lambda: fail(UsageError('wrong'))) == 1
    assert capsys.readouterr().err == '[rank 1] Error: wrong\n'
    with pytest.raises(torch.OutOfMemoryError):
        run_cli(lambda: fail(torch.OutOfMemoryError()))
    assert run_cli(lambda: None) == 0
    assert run_cli(lambda: 3) == 3
