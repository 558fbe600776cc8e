import math
from time import perf_counter

import torch
from mmengine.dist import broadcast, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmseg.registry import HOOKS


def budget_lr_factor(
    progress: float,
    *,
    warmup: float = 0.05,
    decay: str = 'cosine',
    power: float = 1.0,
    min_ratio: float = 0.01,
) -> float:
    """Learning rate, as a share of the base rate, at a point of the budget.

    Args:
        progress: Share of the budget used, 0 to 1 (more counts as 1).
        warmup: Share of the budget over which the rate rises linearly.
        decay: ``'cosine'`` or ``'poly'``.
        power: Exponent of ``'poly'``.
        min_ratio: Share of the base rate left at the end of the budget, and
            the least at its start.

    Returns:
        Factor in ``[min_ratio, 1]``.
    """
    if progress < warmup:
        return max(progress / warmup, min_ratio)
    t = min((progress - warmup) / (1 - warmup), 1.0)
    if decay == 'cosine':
        shape = 0.5 * (1 + math.cos(math.pi * t))
    else:
        shape = (1 - t) ** power
    return min_ratio + (1 - min_ratio) * shape


@HOOKS.register_module()
class TimeBudgetHook(Hook):
    """Train for a given wall-clock time, or number of iterations.

    The learning rate follows the share of the budget that is used, and the
    iteration that uses it up becomes the last one: its checkpoint is saved
    and the final validation runs. The budget counts everything from the
    first iteration on (loading, validation in between, saving), but not the
    set-up before and the final validation after. Elapsed time is kept in
    the checkpoint, so a resumed run gets what is left. Until then
    ``max_iters`` is an estimate, for the log; the configured value stays the
    upper limit.

    A run with a time budget depends on the speed of the machine: its number
    of iterations, which is logged, belongs to the result. Where runs share
    a machine, or are to be repeated on another, a budget in ``iterations``
    is the same for all; with it time does not matter.

    Args:
        seconds: The budget in time.
        iterations: The budget in iterations; if given, instead of
            ``seconds``.
        warmup: See :func:`budget_lr_factor`, as for the next three.
        decay: ``'cosine'`` or ``'poly'``.
        power: Exponent of ``'poly'``.
        min_ratio: Share of the base rate left at the end.
    """

    # Before CheckpointHook (VERY_LOW), which asks whether this was the last.
    priority = 'LOW'

    def __init__(
        self,
        seconds: float,
        warmup: float = 0.05,
        decay: str = 'cosine',
        power: float = 1.0,
        min_ratio: float = 0.01,
        iterations: int | None = None,
    ) -> None:
        if seconds <= 0:
            raise ValueError(f'seconds must be positive, got {seconds}')
        if iterations is not None and iterations < 1:
            raise ValueError(f'iterations must be positive, got {iterations}')
        if not 0 <= warmup < 1:
            raise ValueError(f'warmup must be in [0, 1), got {warmup}')
        if not 0 <= min_ratio <= 1:
            raise ValueError(f'min_ratio must be in [0, 1], got {min_ratio}')
        if decay not in ('cosine', 'poly'):
            raise ValueError(f"decay must be 'cosine' or 'poly', got {decay}")
        self.seconds = seconds if iterations is None else math.inf
        self.iterations = iterations
        self.schedule = dict(
            warmup=warmup, decay=decay, power=power, min_ratio=min_ratio
        )
        self._elapsed_before = 0.0
        self._iters_before = 0
        self._start = 0.0
        self._limit = 0

    def before_train(self, runner: Runner) -> None:
        """Start the clock.

        Raises:
            ValueError: If there are several optimisers, or a parameter
                scheduler, which would overwrite the rate.
        """
        if runner.param_schedulers:
            raise ValueError(
                'TimeBudgetHook sets the learning rate by itself: set '
                'param_scheduler = [] in the config'
            )
        if not isinstance(runner.optim_wrapper, OptimWrapper):
            raise ValueError('TimeBudgetHook works with a single optimizer')
        for group in runner.optim_wrapper.param_groups:
            # Restored by the optimiser's state on resume.
            group.setdefault('initial_lr', group['lr'])
        self._limit = runner.max_iters
        self._start = perf_counter()
        self._iters_before = runner.iter
        if self.iterations is not None:
            self._limit = min(self._limit, self.iterations)
            runner.train_loop._max_iters = self._limit
        progress = self._progress(self._elapsed_before, runner.iter)
        if progress >= 1:
            runner.logger.info('The budget is used up: nothing to train')
            runner.train_loop._max_iters = runner.iter
        self._set_lr(runner, progress)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Set the rate of the next iteration, or end the training."""
        elapsed = self._elapsed()
        done = runner.iter + 1
        if elapsed >= self.seconds or done >= self._limit:
            runner.train_loop._max_iters = done
            runner.logger.info(
                f'Budget: {done} iterations in {elapsed:.1f} s '
                f'of {self._budget()}'
            )
            return
        self._set_lr(runner, self._progress(elapsed, done))
        if self.iterations is not None:
            return
        pace = (elapsed - self._elapsed_before) / (done - self._iters_before)
        left = math.ceil((self.seconds - elapsed) / max(pace, 1e-9))
        runner.train_loop._max_iters = min(self._limit, done + max(left, 1))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the elapsed time."""
        elapsed = self._elapsed_before + perf_counter() - self._start
        checkpoint['time_budget'] = dict(elapsed=elapsed)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore the elapsed time of a resumed run."""
        if runner._resume and 'time_budget' in checkpoint:
            self._elapsed_before = checkpoint['time_budget']['elapsed']

    def _elapsed(self) -> float:
        """Seconds used, the same on every rank."""
        elapsed = self._elapsed_before + perf_counter() - self._start
        if get_world_size() > 1:
            shared = torch.tensor([elapsed], dtype=torch.float64)
            broadcast(shared)
            elapsed = shared.item()
        return elapsed

    def _progress(self, elapsed: float, done: int) -> float:
        """Share of the budget that is used."""
        if self.iterations is None:
            return elapsed / self.seconds
        return done / self.iterations

    def _budget(self) -> str:
        if self.iterations is None:
            return f'{self.seconds:g} s'
        return f'{self.iterations} iterations'

    def _set_lr(self, runner: Runner, progress: float) -> None:
        factor = budget_lr_factor(progress, **self.schedule)
        for group in runner.optim_wrapper.param_groups:
            group['lr'] = group['initial_lr'] * factor
