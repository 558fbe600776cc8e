import math

import numpy as np
import pytest

from mmseg_crackssm.evaluation import CrackScorer, crack_scores, logit_map
from mmseg_crackssm.evaluation.scorer import PROTOCOLS


def make_images(count, skill=1.0, seed=0):
    """Scores and labels of noisy predictions of one line per image."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        label = np.zeros((32, 40), dtype=np.int64)
        label[rng.integers(4, 28)] = 1
        label[:, rng.integers(4, 36)] = 1
        logits = skill * (4.0 * label - 2) + rng.normal(size=label.shape)
        images.append((1 / (1 + np.exp(-logits)), label))
    return images


def records_of(scorer, images):
    return [scorer.record(scores, label) for scores, label in images]


def test_all_protocols_in_one_pass():
    scorer = CrackScorer(protocols=PROTOCOLS, radii=(1, 3))
    figures = scorer.figures(records_of(scorer, make_images(5)), rounds=50)
    expected = {'F1', 'P', 'R', 'mIoU', 'ODS', 'OIS', 'miIoU', 'miDice'}
    expected |= {f'{x}@{r}px' for x in ('F1', 'P', 'R') for r in (1, 3)}
    expected |= {'clDice', 'spurious', 'missing', 'breaks'}
    expected |= {
        f'{what}_{kind}'
        for what in ('length', 'width')
        for kind in ('error', 'bias')
    }
    assert figures.values.keys() == expected == figures.intervals.keys()
    assert figures.values['F1@3px'] >= figures.values['F1@1px'] > 0.8
    for name, value in figures.values.items():
        assert figures.intervals[name].low <= value + 1e-9, name
        assert figures.intervals[name].high >= value - 1e-9, name


def test_weighted_scores_equal_scores_of_the_drawn_images():
    scorer = CrackScorer()
    records = records_of(scorer, make_images(6))
    histograms = np.stack([record['crack'] for record in records])
    drawn = [0, 0, 3, 5, 5, 5]
    weights = np.bincount(drawn, minlength=6)[None]
    weighted = crack_scores(histograms, weights=weights)
    for name, value in crack_scores(histograms[drawn]).items():
        assert weighted[name].item() == pytest.approx(value, abs=1e-12), name


def test_intervals_hold_what_other_draws_give():
    """Of 95 % intervals some 95 % hold the figure of the whole population."""
    scorer = CrackScorer()
    records = records_of(scorer, make_images(400, skill=0.5))
    truth = scorer.figures(records).values['ODS']
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        sample = [records[i] for i in rng.integers(0, 400, size=40)]
        low, high = scorer.figures(sample, rounds=300).intervals['ODS']
        held += low <= truth <= high
    assert 85 <= held <= 100


def test_intervals_depend_on_the_seed_alone():
    scorer = CrackScorer()
    records = records_of(scorer, make_images(8))
    first = scorer.figures(records, rounds=100, seed=1)
    assert first == scorer.figures(records, rounds=100, seed=1)
    assert first.intervals != scorer.figures(records, rounds=100).intervals
    assert scorer.figures(records).intervals == {}


def test_compare_finds_the_better_one():
    scorer = CrackScorer(protocols=['crack', 'image'])
    images = make_images(30, skill=0.6)
    worse = records_of(scorer, images)
    better = records_of(
        scorer, [(0.9 * s + 0.1 * label, label) for s, label in images]
    )
    difference = scorer.compare(worse, better)['F1']
    assert 0 < difference.interval.low
    assert difference.interval.high < 0.3
    assert difference.share == 0
    assert difference.second > difference.first
    back = scorer.compare(better, worse)['F1']
    assert back.interval.low == pytest.approx(-difference.interval.high)
    same = scorer.compare(worse, worse)
    assert all(x.interval == (0, 0) for x in same.values())
    assert all(x.share == 1 for x in same.values())


def test_compare_of_noise_is_not_sure():
    scorer = CrackScorer()
    sets = [make_images(30, skill=0.6, seed=seed) for seed in (0, 0)]
    rng = np.random.default_rng(7)
    noisy = [
        (np.clip(s + rng.normal(0, 0.02, s.shape), 0, 1), label)
        for s, label in sets[1]
    ]
    low, high = scorer.compare(
        records_of(scorer, sets[0]), records_of(scorer, noisy)
    )['OIS'].interval
    assert low < high < 0.05


def test_compare_refuses_other_images():
    scorer = CrackScorer()
    records = records_of(scorer, make_images(3))
    with pytest.raises(ValueError, match='same images'):
        scorer.compare(records, records[:2])
    with pytest.raises(ValueError, match='same images'):
        scorer.compare(records, [*records[:2], None])


def test_ignored_pixels_count_nowhere():
    scorer = CrackScorer(protocols=PROTOCOLS)
    scores, label = make_images(1)[0]
    label = label.copy()
    label[20:] = 255
    other = scores.copy()
    other[20:] = 1 - other[20:]
    first, second = (scorer.record(x, label) for x in (scores, other))
    for name in PROTOCOLS:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_images_without_valid_pixels_are_left_out_and_counted():
    scorer = CrackScorer(protocols=PROTOCOLS)
    images = make_images(3)
    void = scorer.record(images[0][0], np.full((32, 40), 255))
    assert void is None
    figures = scorer.figures([void, *records_of(scorer, images)])
    assert (figures.num_images, figures.num_left_out) == (3, 1)
    with pytest.raises(ValueError, match='at least one image'):
        scorer.figures([void])


def test_levels_are_scores_of_255_parts():
    scorer = CrackScorer(protocols=PROTOCOLS)
    scores, label = make_images(1)[0]
    levels = np.rint(scores * 255).astype(np.uint8)
    first = scorer.record(levels, label)
    second = scorer.record(levels / 255, label)
    for name in PROTOCOLS:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_logit_map_needs_probabilities_for_the_image_protocol():
    scorer = CrackScorer(protocols=['image'], score_map='logit')
    scores, label = make_images(1)[0]
    levels = logit_map(np.log(scores / (1 - scores)))
    with pytest.raises(ValueError, match='needs probabilities'):
        scorer.record(levels, label)
    iou, dice = scorer.record(levels, label, prob=scores)['image']
    expected = CrackScorer(protocols=['image']).record(scores, label)
    assert 0.5 < iou < 1 and dice == expected['image'][1]


def test_undefined_figures_are_nan():
    scorer = CrackScorer(protocols=['size'])
    label = make_images(1)[0][1]
    nothing = scorer.record(np.zeros(label.shape), label)
    figures = scorer.figures([nothing], rounds=10)
    assert math.isnan(figures.values['width_error'])
    assert math.isnan(figures.intervals['width_error'].low)
    assert figures.values['length_error'] > 10
