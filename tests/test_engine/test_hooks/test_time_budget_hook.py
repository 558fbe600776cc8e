import pytest
import torch
from mmengine.runner import Runner
from tiny_run import make_images, tiny_config

from mmseg_crackssm.engine import TimeBudgetHook
from mmseg_crackssm.engine.hooks import time_budget_hook
from mmseg_crackssm.engine.hooks.time_budget_hook import budget_lr_factor


def test_lr_factor_rises_and_falls():
    schedule = dict(warmup=0.1, min_ratio=0.02)
    assert budget_lr_factor(0.0, **schedule) == 0.02
    assert budget_lr_factor(0.05, **schedule) == pytest.approx(0.5)
    assert budget_lr_factor(0.1, **schedule) == pytest.approx(1.0)
    assert budget_lr_factor(0.55, **schedule) == pytest.approx(0.51)
    assert budget_lr_factor(1.7, **schedule) == pytest.approx(0.02)
    poly = dict(warmup=0.0, decay='poly', power=2.0, min_ratio=0.0)
    assert budget_lr_factor(0.5, **poly) == pytest.approx(0.25)


@pytest.mark.parametrize(
    'wrong',
    [
        dict(seconds=0),
        dict(seconds=1, warmup=1),
        dict(seconds=1, min_ratio=2),
        dict(seconds=1, decay='step'),
        dict(seconds=1, iterations=0),
    ],
)
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match='must be'):
        TimeBudgetHook(**wrong)


class Clock:
    """Two seconds for each training iteration, ten for a slow one."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(time_budget_hook, 'perf_counter', lambda: self.now)

    def attach(self, runner, die_at=None, slow_at=None):
        step = runner.model.train_step

        def train_step(*args, **kwargs):
            if runner.iter == die_at:
                raise KeyboardInterrupt
            self.now += 10 if runner.iter == slow_at else 2
            self.rates.append(runner.optim_wrapper.param_groups[0]['lr'])
            return step(*args, **kwargs)

        self.rates = []
        runner.model.train_step = train_step


def _config(tmp_path, name, **settings):
    cfg = tiny_config(tmp_path, max_iters=10**9)
    cfg.experiment_name = f'{tmp_path.name}-{name}'
    cfg.param_scheduler = []
    cfg.train_cfg.val_interval = 10**9
    cfg.default_hooks.time_budget = dict(
        type='TimeBudgetHook', seconds=20, warmup=0.2, **settings
    )
    cfg.default_hooks.checkpoint.interval = 4
    return cfg


def test_budget_ends_training_with_checkpoint_and_validation(
    tmp_path, monkeypatch
):
    make_images(tmp_path)
    clock = Clock(monkeypatch)
    runner = Runner.from_cfg(_config(tmp_path, 'whole'))
    # Slower than any estimate could tell.
    clock.attach(runner, slow_at=6)
    validations = []
    monkeypatch.setattr(
        TimeBudgetHook,
        'after_val_epoch',
        lambda self, runner, metrics=None: validations.append(runner.iter),
    )
    runner.train()
    # 6 times 2 s, then 10 s.
    assert runner.iter == runner.max_iters == 7
    assert validations == [7]
    last = (tmp_path / 'work' / 'last_checkpoint').read_text()
    assert last.endswith('iter_7.pth')
    expected = [
        0.01 * budget_lr_factor(2 * i / 20, warmup=0.2) for i in range(7)
    ]
    assert clock.rates == pytest.approx(expected)
    checkpoint = torch.load(last, weights_only=True)
    assert checkpoint['time_budget'] == dict(elapsed=22.0)
    assert max(clock.rates) == pytest.approx(0.01)


def test_resume_gets_what_is_left(tmp_path, monkeypatch):
    make_images(tmp_path)
    clock = Clock(monkeypatch)
    runner = Runner.from_cfg(_config(tmp_path, 'first'))
    clock.attach(runner, die_at=5)
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    clock.now += 10000  # the machine was off
    cfg = _config(tmp_path, 'second')
    cfg.resume = True
    runner = Runner.from_cfg(cfg)
    clock.attach(runner)
    runner.train()
    # Checkpoint at 4 iterations and 8 s; 12 s are left.
    assert len(clock.rates) == 6
    assert runner.iter == 10
    assert clock.rates[0] == pytest.approx(
        0.01 * budget_lr_factor(0.4, warmup=0.2)
    )


def test_nothing_left_trains_nothing(tmp_path, monkeypatch):
    make_images(tmp_path)
    clock = Clock(monkeypatch)
    runner = Runner.from_cfg(_config(tmp_path, 'done'))
    clock.attach(runner)
    runner.train()
    cfg = _config(tmp_path, 'again')
    cfg.resume = True
    runner = Runner.from_cfg(cfg)
    clock.attach(runner)
    runner.train()
    assert clock.rates == []


def test_max_iters_stays_the_limit(tmp_path, monkeypatch):
    make_images(tmp_path)
    clock = Clock(monkeypatch)
    cfg = _config(tmp_path, 'limit')
    cfg.train_cfg.max_iters = 3
    runner = Runner.from_cfg(cfg)
    clock.attach(runner)
    runner.train()
    assert runner.iter == 3
    assert (tmp_path / 'work' / 'iter_3.pth').is_file()


def test_budget_in_iterations_ignores_the_clock(tmp_path, monkeypatch):
    make_images(tmp_path)
    clock = Clock(monkeypatch)
    runner = Runner.from_cfg(_config(tmp_path, 'counted', iterations=5))
    clock.attach(runner, die_at=4, slow_at=1)
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    assert runner.max_iters == 5
    rates = clock.rates
    cfg = _config(tmp_path, 'rest', iterations=5)
    cfg.resume = True
    runner = Runner.from_cfg(cfg)
    clock.attach(runner)
    runner.train()
    assert runner.iter == runner.max_iters == 5
    expected = [0.01 * budget_lr_factor(i / 5, warmup=0.2) for i in range(5)]
    assert rates + clock.rates == pytest.approx(expected)


def test_scheduler_beside_the_budget_is_refused(tmp_path):
    make_images(tmp_path)
    cfg = _config(tmp_path, 'scheduler')
    cfg.param_scheduler = [dict(type='ConstantLR', factor=1, by_epoch=False)]
    with pytest.raises(ValueError, match='param_scheduler'):
        Runner.from_cfg(cfg).train()
