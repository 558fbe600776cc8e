"""A training loop whose every iteration is a function of the seed."""

import random
from collections.abc import Iterator, Sized
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import get_dist_info
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.runner.utils import calc_dynamic_intervals
from mmseg.registry import DATASETS, LOOPS
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

# First words of the entropy, so that draws and iterations share no seed.
_DRAW, _ITERATION = 0, 1


def _seed_generators(*entropy: int) -> None:
    """Seed the CPU generators of Python, NumPy and torch."""
    words = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.default_generator.manual_seed(int(words[2]))


class SeededDataset(Dataset):
    """A data set whose augmentation depends on the number of the draw alone.

    An index ``(draw, index)`` gives sample ``index``, augmented by the
    generators seeded with ``(seed, draw)``: the same in any worker, with any
    number of workers, before and after a resume. The generators' states are
    left as they were. A plain index passes through.

    Args:
        dataset: The data set; its other attributes are read through.
        pretraining: Another one, whose samples have the indices from
            ``len(dataset)`` on.
    """

    def __init__(
        self, dataset: Dataset, pretraining: Dataset | None = None
    ) -> None:
        self.dataset = dataset
        self.pretraining = pretraining
        self.seed = 0

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # not there yet while unpickling
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int | tuple[int, int]) -> Any:
        if not isinstance(index, tuple):
            return self._sample(index)
        draw, index = index
        states = random.getstate(), np.random.get_state()
        torch_state = torch.get_rng_state()
        _seed_generators(_DRAW, self.seed, draw)
        try:
            return self._sample(index)
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(torch_state)

    def _sample(self, index: int) -> Any:
        if self.pretraining is not None and index >= len(self.dataset):
            return self.pretraining[index - len(self.dataset)]
        return self.dataset[index]


class DrawSampler(Sampler):
    """Endless ``(draw, index)`` pairs that can start anywhere.

    The indices are those of mmengine's ``InfiniteSampler``; draws are
    numbered over all ranks.

    Args:
        dataset: What to draw from.
        shuffle: Whether each pass is a new permutation.
        pretraining: What to draw from before; see :class:`SeededDataset` for
            its indices.
        pretraining_draws: How often, on each rank.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        pretraining: Sized = (),
        pretraining_draws: int = 0,
    ) -> None:
        self.size = len(dataset)
        if self.size == 0:
            raise ValueError('the training data set is empty')
        self.shuffle = shuffle
        self.pretraining_size = len(pretraining)
        self.pretraining_draws = pretraining_draws
        self.rank, self.world_size = get_dist_info()
        self.seed = 0
        self.start = 0

    def _indices(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self.seed)
        before = self._passes(self.pretraining_size, generator)
        total = self.pretraining_draws * self.world_size
        for index in islice(before, total):
            yield self.size + index
        yield from self._passes(self.size, generator)

    def _passes(self, size: int, generator: torch.Generator) -> Iterator[int]:
        while True:
            if self.shuffle:
                yield from torch.randperm(size, generator=generator).tolist()
            else:
                yield from range(size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        first = self.rank + self.start * self.world_size
        return islice(enumerate(self._indices()), first, None, self.world_size)

    def __len__(self) -> int:
        return self.size


def reproducible_dataloader(
    loader: DataLoader,
    pretraining: Dataset | None = None,
    pretraining_iters: int = 0,
) -> DataLoader:
    """The same loader, drawing by :class:`DrawSampler`.

    Args:
        loader: A loader with mmengine's ``InfiniteSampler`` or
            ``DefaultSampler`` and a fixed batch size.
        pretraining: Data set of the first batches.
        pretraining_iters: Number of these.

    Returns:
        A loader over :class:`SeededDataset`.

    Raises:
        ValueError: For another sampler or a batch sampler of its own.
    """
    sampler = loader.sampler
    if loader.batch_size is None or not isinstance(
        sampler, (InfiniteSampler, DefaultSampler)
    ):
        raise ValueError(
            'ReproducibleIterBasedTrainLoop needs a fixed batch_size and '
            'InfiniteSampler or DefaultSampler, got '
            f'batch_sampler={type(loader.batch_sampler).__name__}, '
            f'sampler={type(sampler).__name__}: change the train_dataloader '
            "or use train_cfg = dict(type='IterBasedTrainLoop', ...)"
        )
    return DataLoader(
        SeededDataset(loader.dataset, pretraining),
        batch_size=loader.batch_size,
        sampler=DrawSampler(
            loader.dataset,
            shuffle=sampler.shuffle,
            pretraining=() if pretraining is None else pretraining,
            pretraining_draws=pretraining_iters * loader.batch_size,
        ),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        drop_last=loader.drop_last,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        # Its own, so that starting workers takes nothing from the global one.
        generator=torch.Generator(),
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )


def _build_pretraining(config: dict | None) -> tuple[Dataset | None, int]:
    """The data set and the number of iterations."""
    if config is None:
        return None, 0
    iters = config.get('iters')
    if config.keys() != {'dataset', 'iters'} or not (
        isinstance(iters, int) and iters >= 1
    ):
        raise ValueError(
            'pretraining must be dict(dataset=..., iters=N) with N of at '
            f'least 1, got {config!r}'
        )
    dataset = DATASETS.build(config['dataset'])
    if not len(dataset):
        raise ValueError('the data set of pretraining is empty')
    return dataset, iters


@LOOPS.register_module()
class ReproducibleIterBasedTrainLoop(IterBasedTrainLoop):
    """Iteration-based training that a resume continues exactly.

    Everything random in iteration i (the samples, their augmentation,
    dropout, drop path) follows from the seed, the rank and i. So nothing of
    the generators has to be saved: a run resumed from a checkpoint gives on
    CPU the same losses, bit for bit, as one never interrupted, whatever the
    number of loader workers, and the skipped data are not read.

    Args:
        runner: The runner.
        dataloader: Loader or its config, with ``InfiniteSampler`` or
            ``DefaultSampler``.
        max_iters: Total training iterations.
        val_begin: First iteration after which validation may run.
        val_interval: Iterations between validations; one more runs at the
            end.
        dynamic_intervals: ``(iteration, interval)`` pairs that change
            ``val_interval`` on the way.
        pretraining: ``dict(dataset=..., iters=N)``: the first N iterations
            draw from this data set, e.g. ``SyntheticCrackDataset``, in the
            batches and the learning rate of the rest.

    Raises:
        ValueError: If an argument is not as said.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
        pretraining: dict | None = None,
    ) -> None:
        if int(max_iters) != max_iters or max_iters < 1:
            raise ValueError(
                f'max_iters must be a positive integer, got {max_iters}'
            )
        # Not IterBasedTrainLoop's: official mmengine starts loading there,
        # before a resume has said where.
        super(IterBasedTrainLoop, self).__init__(runner, dataloader)
        self.dataloader = reproducible_dataloader(
            self.dataloader, *_build_pretraining(pretraining)
        )
        self._max_iters = int(max_iters)
        self._max_epochs = 1
        self._epoch = 0
        self._iter = 0
        self.val_begin = val_begin
        self.val_interval = val_interval
        self.stop_training = False
        self.dataloader_iterator = None
        self.runner.visualizer.dataset_meta = getattr(
            self.dataloader.dataset, 'metainfo', None
        )
        self.dynamic_milestones, self.dynamic_intervals = (
            calc_dynamic_intervals(self.val_interval, dynamic_intervals)
        )

    def run(self) -> nn.Module:
        """Train from the current iteration to the last."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self.dataloader_iterator = self._start_loading()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._decide_current_val_interval()
            if (
                self.runner.val_loop is not None
                and self._iter >= self.val_begin
                and (
                    self._iter % self.val_interval == 0
                    or self._iter == self._max_iters
                )
            ):
                self.runner.val_loop.run()
        # Ends the workers; persistent ones the loader holds as well.
        self.dataloader_iterator = self.dataloader._iterator = None
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_iter(self, data_batch: dict) -> None:
        """One iteration, its randomness fixed by its number."""
        _seed_generators(
            _ITERATION, self._shared_seed(), self.runner.rank, self._iter
        )
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(torch.initial_seed())
        super().run_iter(data_batch)

    def _start_loading(self) -> Iterator:
        """Batches from the current iteration on.

        The seed is read here, since a resume may have restored it.
        """
        loader = self.dataloader
        loader.dataset.seed = loader.sampler.seed = self._shared_seed()
        loader.sampler.start = self._iter * loader.batch_size
        return iter(loader)

    def _shared_seed(self) -> int:
        """The seed common to all ranks."""
        randomness = self.runner._randomness_cfg
        # mmengine has added the rank to it.
        offset = self.runner.rank if randomness.get('diff_rank_seed') else 0
        return self.runner.seed - offset
