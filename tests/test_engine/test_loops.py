import random

import numpy as np
import pytest
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.runner import Runner
from tiny_run import make_images, tiny_config
from torch.utils.data import DataLoader, Dataset

from mmseg_crackssm.engine import loops
from mmseg_crackssm.engine.loops import (
    DrawSampler,
    SeededDataset,
    reproducible_dataloader,
)


class RandomDataset(Dataset):
    """Samples that use all three generators."""

    name = 'random'

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return torch.tensor(
            [index, random.random(), np.random.rand(), torch.rand(1).item()],
            dtype=torch.float64,
        )


def _draws(num_workers: int, start: int, count: int) -> torch.Tensor:
    dataset = RandomDataset()
    loader = reproducible_dataloader(
        DataLoader(
            dataset,
            batch_size=2,
            sampler=InfiniteSampler(dataset, seed=7),
            num_workers=num_workers,
        )
    )
    loader.dataset.seed = loader.sampler.seed = 7
    loader.sampler.start = 2 * start
    batches = iter(loader)
    return torch.stack([next(batches) for _ in range(count)])


def test_draws_depend_on_their_number_alone():
    whole = _draws(num_workers=0, start=0, count=6)
    assert torch.equal(whole, _draws(num_workers=2, start=0, count=6))
    assert torch.equal(whole[4:], _draws(num_workers=0, start=4, count=2))
    assert torch.equal(whole[4:], _draws(num_workers=2, start=4, count=2))
    # The same sample is augmented differently each time it is drawn.
    values = whole.flatten(0, 1)[:, 1]
    assert len(values.unique()) == len(values)


def test_drawing_leaves_the_generators_alone():
    dataset = SeededDataset(RandomDataset())
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    dataset[(9, 3)]
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected
    assert dataset.name == 'random'


@pytest.mark.parametrize('shuffle', [True, False])
def test_sampler_gives_the_indices_of_infinite_sampler(monkeypatch, shuffle):
    data = range(7)
    reference = iter(InfiniteSampler(data, shuffle=shuffle, seed=5))
    expected = [next(reference) for _ in range(30)]
    found = {}
    for rank in range(2):
        monkeypatch.setattr(
            loops, 'get_dist_info', lambda rank=rank: (rank, 2)
        )
        sampler = DrawSampler(data, shuffle=shuffle)
        sampler.seed, sampler.start = 5, 3
        draws = iter(sampler)
        found.update(next(draws) for _ in range(12))
    assert found == dict(list(enumerate(expected))[6:])


def test_loader_that_cannot_be_reproduced_is_refused():
    loader = DataLoader(RandomDataset(), batch_size=2)
    with pytest.raises(ValueError, match='InfiniteSampler'):
        reproducible_dataloader(loader)


def test_pretraining_comes_first(monkeypatch):
    other = range(100, 104)
    found = {}
    for rank in range(2):
        monkeypatch.setattr(
            loops, 'get_dist_info', lambda rank=rank: (rank, 2)
        )
        sampler = DrawSampler(
            RandomDataset(), pretraining=other, pretraining_draws=3
        )
        dataset = SeededDataset(RandomDataset(), other)
        draws = iter(sampler)
        for draw, index in (next(draws) for _ in range(10)):
            found[draw] = dataset[(draw, index)]
    values = [found[draw] for draw in range(20)]
    # Six of the other data set: a pass of all four, and two more.
    assert sorted(values[:4]) == list(other) and set(values[4:6]) < {*other}
    indices = [int(value[0]) for value in values[6:]]
    assert sorted(indices[:5]) == sorted(indices[5:10]) == list(range(5))


@pytest.mark.parametrize(
    'pretraining',
    [dict(iters=3), dict(iters=0, dataset=dict(type='x')), dict(dataset={})],
)
def test_bad_pretraining_is_refused(tmp_path, pretraining):
    make_images(tmp_path)
    cfg = tiny_config(tmp_path)
    cfg.train_cfg.pretraining = pretraining
    with pytest.raises(ValueError, match='pretraining must be'):
        Runner.from_cfg(cfg).train()


class Stop(Exception):
    """Raised where the run is cut."""


def _train(cfg, name, stop_after=None, resume=False):
    cfg = cfg.copy()
    cfg.experiment_name = f'{cfg.work_dir}-{name}'.replace('/', '_')
    cfg.work_dir = f'{cfg.work_dir}-{name.split()[0]}'
    cfg.resume = resume
    runner = Runner.from_cfg(cfg)
    if stop_after is not None:
        step = runner.model.train_step

        def train_step(*args, **kwargs):
            if runner.iter == stop_after:
                raise Stop
            return step(*args, **kwargs)

        runner.model.train_step = train_step
        with pytest.raises(Stop):
            runner.train()
    else:
        runner.train()
    return runner


@pytest.mark.parametrize('num_workers', [0, 2])
@pytest.mark.parametrize('pretraining', [0, 4])
def test_resume_continues_bit_for_bit(tmp_path, num_workers, pretraining):
    """With dropout, augmentation, EMA, scheduler, validation in between."""
    make_images(tmp_path)
    cfg = tiny_config(
        tmp_path,
        num_workers=num_workers,
        custom_hooks=[
            dict(type='LossRecorder'),
            dict(type='EMAHook', momentum=0.1, update_buffers=True),
        ],
    )
    if pretraining:
        make_images(tmp_path / 'other', seed=1)
        dataset = cfg.train_dataloader.dataset.copy()
        dataset.data_root = str(tmp_path / 'other')
        cfg.train_cfg.pretraining = dict(iters=pretraining, dataset=dataset)
    whole = _train(cfg, 'whole')
    # No worker outlives the training.
    assert whole.train_loop.dataloader._iterator is None
    # The last checkpoint is of iteration 3, a validation ran after 4.
    cut = _train(cfg, 'cut first', stop_after=5)
    resumed = _train(cfg, 'cut second', resume=True)
    assert list(cut.losses) == [0, 1, 2, 3, 4]
    assert list(resumed.losses) == [3, 4, 5, 6, 7]
    assert {**cut.losses, **resumed.losses} == whole.losses
    assert len(set(whole.losses.values())) == 8
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    # The histories of the log are continued too.
    history = [
        runner.message_hub.get_scalar('train/loss').data[0].tolist()
        for runner in (whole, resumed)
    ]
    assert history[0] == history[1]
