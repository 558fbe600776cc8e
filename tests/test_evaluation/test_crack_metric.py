import math
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.registry import METRICS
from mmseg.structures import SegDataSample

from mmseg_crackssm.evaluation import CrackMetric, crack_scores
from mmseg_crackssm.evaluation.functional import (
    threshold_edges,
    threshold_histogram,
)

FIGURES = ('F1', 'P', 'R', 'mIoU', 'ODS', 'OIS')


def make_sample(logits, gt=None, name='image.png'):
    sample = SegDataSample(
        metainfo=dict(img_path=name),
        seg_logits=PixelData(data=torch.as_tensor(logits)),
    )
    if gt is not None:
        sample.gt_sem_seg = PixelData(data=torch.as_tensor(gt)[None])
    return sample.to_dict()


def random_samples(count, channels=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for i in range(count):
        shape = (12 + i % 3, 16)
        gt = (torch.rand(shape, generator=generator) < 0.2).long()
        gt[0, :3] = 255
        logits = torch.randn((channels, *shape), generator=generator)
        logits[-1] += 2.0 * gt.eq(1)
        samples.append(make_sample(logits, gt, name=f'{i}.png'))
    return samples


def evaluate(samples, **kwargs):
    metric = CrackMetric(**kwargs)
    for sample in samples:
        metric.process({}, [sample])
    return metric.evaluate(len(samples))


def test_built_from_config_beside_iou_metric():
    cfg = Config(
        dict(
            metrics=[
                dict(type='mmseg.CrackMetric', protocols=['crack']),
                dict(type='mmseg.IoUMetric', iou_metrics=['mIoU']),
            ]
        )
    )
    metric = METRICS.build(cfg.metrics[0])
    assert isinstance(metric, CrackMetric)
    evaluator = Evaluator(cfg.metrics)
    evaluator.dataset_meta = dict(classes=('background', 'crack'))
    samples = random_samples(4)
    for sample in samples:
        pred = (sample['seg_logits']['data'] > 0).long()
        sample['pred_sem_seg'] = dict(data=pred)
    evaluator.process(samples, {})
    scores = evaluator.evaluate(4)
    assert {f'crack/{x}' for x in FIGURES} < set(scores)
    assert 'mIoU' in scores


def test_equals_the_pure_functions():
    samples = random_samples(5)
    edges = threshold_edges(0.37)
    histograms = [
        threshold_histogram(
            x['seg_logits']['data'][0].double().sigmoid().numpy(),
            x['gt_sem_seg']['data'][0].numpy(),
            edges=edges,
        )
        for x in samples
    ]
    expected = crack_scores(histograms, edges=edges, threshold=0.37)
    actual = evaluate(samples, threshold=0.37, rounds=0, prefix='a')
    assert actual == {f'a/{k}': v for k, v in expected.items()}


def test_one_channel_probabilities_are_not_squashed_again():
    logits = torch.tensor([[[-5.0, -1.0, 3.0, 1.0]]])
    gt = [[0, 0, 1, 1]]
    raw = evaluate([make_sample(logits, gt)])
    prob = evaluate([make_sample(logits.sigmoid(), gt)])
    assert raw == prob
    assert raw['crack/F1'] == 1
    forced = evaluate([make_sample(logits.sigmoid(), gt)], one_channel='logit')
    # All sigmoids of probabilities exceed 0.5: everything is crack.
    assert forced['crack/P'] == 0.5
    # Logits that all lie in [0, 1] need the explicit argument.
    inside = make_sample(torch.tensor([[[0.2, 0.9]]]), [[0, 1]])
    assert evaluate([inside])['crack/P'] == 1
    assert evaluate([inside], one_channel='logit')['crack/P'] == 0.5
    with pytest.raises(ValueError, match='probabilities'):
        evaluate([make_sample(logits, gt)], one_channel='prob')


@pytest.mark.parametrize('channels', [1, 2])
def test_maps_of_mmseg_segmentors_are_understood(channels):
    """What ``EncoderDecoder`` puts into ``seg_logits`` is read right."""
    logits = torch.tensor([[-4.0, 0.5], [3.0, -0.2]])
    maps = logits[None, None]
    if channels == 2:
        maps = torch.cat((torch.zeros_like(maps), maps), dim=1)
    segmentor = EncoderDecoder.__new__(EncoderDecoder)
    torch.nn.Module.__init__(segmentor)
    segmentor.align_corners = False
    segmentor.decode_head = torch.nn.Module()
    segmentor.decode_head.threshold = 0.5
    meta = dict(
        ori_shape=(2, 2), img_shape=(2, 2), padding_size=[0] * 4, img_path=''
    )
    sample = SegDataSample(metainfo=meta)
    sample.gt_sem_seg = PixelData(data=torch.tensor([[[0, 1], [1, 0]]]))
    (sample,) = segmentor.postprocess_result(maps, [sample])
    scores = evaluate([sample.to_dict()])
    assert scores['crack/F1'] == scores['crack/ODS'] == 1


def test_two_channels_equal_softmax():
    samples = random_samples(3, channels=2)
    ones = []
    for sample in samples:
        prob = sample['seg_logits']['data'].double().softmax(dim=0)[1:]
        ones.append(make_sample(prob, sample['gt_sem_seg']['data'][0]))
    assert evaluate(samples) == pytest.approx(evaluate(ones), abs=1e-12)


def test_logit_map_is_scored_at_zero():
    # Levels: 0 (cut), 0 (rounds to 0), 13, 255.
    logits = torch.tensor([[[-3.0, 0.005, 0.25, 5.0]]])
    sample = make_sample(logits, [[0, 0, 1, 1]])
    scores = evaluate([sample], score_map='logit')
    assert scores['crack/F1'] == scores['crack/mIoU'] == 1
    # As a probability the second pixel is above 0.5, too.
    assert evaluate([sample])['crack/P'] == pytest.approx(2 / 3)


def test_logit_map_from_probabilities():
    samples = random_samples(3)
    expected = evaluate(samples, score_map='logit')
    for sample in samples:
        logits = sample['seg_logits']['data']
        sample['seg_logits']['data'] = logits.sigmoid()
    assert evaluate(samples, score_map='logit') == expected
    # A saturated sigmoid stays finite: the peak is 17.33, so 1.0 keeps
    # level round(255 / 17.33).
    saturated = torch.tensor([[[1.0, 0.0, 1 / (1 + math.exp(-1))]]])
    metric = CrackMetric(score_map='logit')
    metric.process({}, [make_sample(saturated, [[1, 0, 1]])])
    ((_, record),) = metric.results
    histogram = record['crack']
    level = round(255 / math.log(2**25 - 1))
    passed = int((np.arange(0, 1, 0.01) < level / 255).sum())
    assert np.flatnonzero(histogram[1]).tolist() == [passed, 100]


def test_results_are_small_integers():
    metric = CrackMetric()
    samples = random_samples(3)
    metric.process({}, samples)
    records = [record for _, record in metric.results]
    for record in records:
        assert record['crack'].shape == (2, 101)
        assert record['crack'].dtype == np.int64
    # Three pixels of each are ignored.
    counted = [x['crack'].sum() for x in records]
    total = [x['gt_sem_seg']['data'].numel() - 3 for x in samples]
    assert counted == total


def test_sources_are_scored_apart(tmp_path):
    samples = [
        {**x, 'img_path': str(tmp_path / folder / 'x.png')}
        for x, folder in zip(
            random_samples(4), ('one', 'two', 'two', 'one'), strict=True
        )
    ]
    sources = {name: str(tmp_path / name) for name in ('one', 'two', 'none')}
    scores = evaluate(samples, sources=sources, rounds=0)
    parts = {
        'one': evaluate([samples[0], samples[3]], rounds=0),
        'two': evaluate(samples[1:3], rounds=0),
    }
    assert scores == evaluate(samples, rounds=0) | {
        name.replace('crack/', f'crack/{source}/'): value
        for source, part in parts.items()
        for name, value in part.items()
    }
    with pytest.raises(ValueError, match='one of the sources'):
        evaluate(samples, sources={'one': sources['one']})


def test_prints_the_number_of_images(monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mmseg_crackssm.evaluation.crack_metric.print_log',
        lambda message, logger: lines.append(message),
    )
    samples = random_samples(4)
    samples[1]['gt_sem_seg']['data'].fill_(255)
    scores = evaluate(samples)
    text = '\n'.join(lines)
    assert '3 images scored (1 more' in text
    assert f'{scores["crack/OIS"]:.4f}' in text


@pytest.mark.parametrize(
    ('kwargs', 'match'),
    [
        (dict(protocols=['edge']), r"\['crack', 'image', .*'edge'"),
        (dict(radii=[-1]), 'radii'),
        (dict(rounds=-1), 'rounds'),
        (dict(protocols='crack'), 'list'),
        (dict(protocols=[]), 'list'),
        (dict(score_map='8bit'), 'score_map'),
        (dict(one_channel='sigmoid'), 'one_channel'),
        (dict(threshold=50), r'\[0, 1\)'),
    ],
)
def test_bad_arguments_are_refused(kwargs, match):
    with pytest.raises(ValueError, match=match):
        CrackMetric(**kwargs)


@pytest.mark.parametrize(
    ('sample', 'match'),
    [
        (make_sample(torch.zeros(1, 2, 2)), 'no.png.*gt_sem_seg'),
        (make_sample(torch.zeros(3, 2, 2), [[0, 1]] * 2), r'\(3, 2, 2\)'),
        (make_sample(torch.zeros(1, 2, 2), [[0, 1]]), 'one shape'),
        (make_sample(torch.full((2, 1, 2), math.nan), [[0, 1]]), 'diverged'),
        (make_sample(torch.zeros(1, 1, 2), [[0, 2]]), r'\[2\]'),
        ({'gt_sem_seg': {'data': torch.zeros(1, 2, 2)}}, 'seg_logits'),
    ],
)
def test_bad_samples_are_refused_by_name(sample, match):
    sample = dict(sample, img_path='no.png')
    with pytest.raises(ValueError, match=match) as error:
        CrackMetric().process({}, [sample])
    assert 'no.png' in str(error.value)


# Run by path in each process: how a test module is imported by name is
# pytest's affair.
WORKER = """
import runpy, sys
tests = runpy.run_path(sys.argv[1])
tests['evaluate_rank'](rank=int(sys.argv[2]), world_size=2, count=5)
"""


def evaluate_rank(rank, world_size, count):
    """Score one process's share of the images, in the current folder."""
    dist.init_process_group(
        'gloo',
        init_method=f'file://{Path.cwd()}/store',
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=100),
    )
    samples = random_samples(count)
    share = -(-count // world_size)
    # As mmengine's DefaultSampler: padded from the start, then strided.
    indices = [i % count for i in range(share * world_size)]
    metric = CrackMetric()
    for i in indices[rank::world_size]:
        metric.process({}, [samples[i]])
    torch.save(metric.evaluate(count), f'scores{rank}.pt')
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_same_figures(tmp_path, repo_root):
    """Bit for bit, with an odd number of images (one padding duplicate)."""
    path = [str(repo_root), os.environ.get('PYTHONPATH', '')]
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, path))}
    workers = [
        subprocess.Popen(
            [sys.executable, '-c', WORKER, __file__, str(rank)],
            cwd=tmp_path,
            env=env,
        )
        for rank in range(2)
    ]
    try:
        assert [x.wait(timeout=200) for x in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    expected = evaluate(random_samples(5))
    for rank in range(2):
        scores = torch.load(tmp_path / f'scores{rank}.pt', weights_only=True)
        assert scores == expected
    # The duplicate would show if it were counted.
    samples = random_samples(5)
    assert evaluate([*samples, samples[0]]) != expected
