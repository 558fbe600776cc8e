import math

import numpy as np
import pytest
import torch

from mmseg_crackssm.evaluation import (
    THRESHOLDS,
    confusion_counts,
    crack_scores,
    logit_map,
    precision_recall_f1,
    regroup_levels,
    threshold_edges,
    threshold_histogram,
)

FIGURES = ('F1', 'P', 'R', 'mIoU', 'ODS', 'OIS')
# What the published script gives as nan, and the value here.
SETTLED = {
    'empty_gt': {'R': 1.0, 'F1': 0.0},
    'both_empty': {'R': 1.0, 'F1': 1.0},
    'all_crack_perfect': {'mIoU': 1.0},
    'pred_inverse': {'F1': 0.0},
    'with_all_crack': {'mIoU': None},
}


@pytest.fixture(scope='module')
def golden(golden_dir):
    return torch.load(golden_dir / 'metrics_synthetic.pt', weights_only=True)


def histogram_of(case):
    gt = case['gt_loaded'].numpy() // 255
    return threshold_histogram(case['pred'].numpy(), gt)


def golden_sets(golden):
    for name, case in golden['cases'].items():
        yield name, [case], case['result']
    for name, entry in golden['sets'].items():
        cases = [golden['cases'][x] for x in entry['names']]
        yield name, cases, entry['result']


def test_thresholds_equal_the_published_ones(golden):
    np.testing.assert_array_equal(THRESHOLDS, golden['thresholds'].numpy())
    passed = regroup_levels(np.eye(256, dtype=int)).argmax(axis=1)
    first_level = [int((passed <= k).sum()) for k in range(100)]
    assert first_level == golden['min_uint8_level_predicted_crack'].tolist()


def test_parity_on_synthetic_images(golden):
    nans = {}
    for name, cases, result in golden_sets(golden):
        histograms = np.stack([histogram_of(x) for x in cases])
        scores = crack_scores(histograms, threshold=0.0)
        assert set(scores) == set(FIGURES)
        for figure, value in scores.items():
            assert 0 <= value <= 1, (name, figure)
            if math.isnan(result[figure]):
                nans.setdefault(name, {})[figure] = value
            else:
                assert value == pytest.approx(result[figure], abs=1e-12)
    assert {k: set(v) for k, v in nans.items()} == {
        k: set(v) for k, v in SETTLED.items()
    }
    for name, figures in SETTLED.items():
        for figure, value in figures.items():
            if value is not None:
                assert nans[name][figure] == value, (name, figure)


def test_pooled_curve_equals_the_published_one(golden):
    for name, cases, result in golden_sets(golden):
        counts = confusion_counts([histogram_of(x) for x in cases])
        tp, fp, fn, _ = (x.sum(axis=0) for x in counts)
        curve = np.stack(precision_recall_f1(tp=tp, fp=fp, fn=fn), axis=1)
        expected = result['prf_curve'].numpy()[:, 1:]
        known = ~np.isnan(expected)
        np.testing.assert_allclose(
            curve[known], expected[known], atol=1e-12, err_msg=name
        )
        half = np.array(result['prf_metrics_half'])
        known = ~np.isnan(half)
        np.testing.assert_allclose(
            curve[50][known], half[known], atol=1e-12, err_msg=name
        )


def test_parity_on_tut_histograms(golden_dir):
    with np.load(golden_dir / 'metrics_tut_hist.npz') as tut:
        histograms = regroup_levels(tut['hist'])
        scores = crack_scores(histograms, threshold=0.0)
        for figure in FIGURES:
            assert scores[figure] == pytest.approx(
                float(tut[figure]), abs=1e-12
            )
        for row in tut['curve'][::7]:
            at = crack_scores(histograms, threshold=row[0])
            np.testing.assert_allclose(
                [at['P'], at['R'], at['F1']], row[1:], atol=1e-12
            )


def brute_force(images, threshold):
    """The protocol as a loop over thresholds and images."""
    f1s, ious = [], []
    for t in THRESHOLDS:
        rows = []
        for scores, gt in images:
            pred, valid = scores > t, gt != 255
            tp = int((pred & (gt == 1)).sum())
            fp = int((pred & (gt == 0)).sum())
            fn = int((~pred & (gt == 1)).sum())
            tn = int((~pred & (gt == 0)).sum())
            assert tp + fp + fn + tn == valid.sum()
            f1 = 2 * tp / (2 * tp + fp + fn)
            iou = tp / (tp + fp + fn) / 2 + tn / (tn + fp + fn) / 2
            rows.append((f1, iou))
        f1s.append([x[0] for x in rows])
        ious.append([x[1] for x in rows])
    pred = np.concatenate([s[g != 255] > threshold for s, g in images])
    crack = np.concatenate([g[g != 255] == 1 for _, g in images])
    p = (pred & crack).sum() / pred.sum()
    r = (pred & crack).sum() / crack.sum()
    return {
        'F1': 2 * p * r / (p + r),
        'P': p,
        'R': r,
        'mIoU': np.mean(ious, axis=1).max(),
        'ODS': np.mean(f1s, axis=1).max(),
        'OIS': np.max(f1s, axis=0).mean(),
    }


@pytest.mark.parametrize('dtype', [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize('threshold', [0.5, 0.123])
def test_one_pass_equals_brute_force(dtype, threshold):
    rng = np.random.default_rng(0)
    edges = threshold_edges(threshold)
    images = []
    for size in [(9, 14), (16, 16), (5, 40)]:
        gt = rng.choice([0, 1, 255], p=[0.7, 0.2, 0.1], size=size)
        scores = np.clip(0.4 * (gt == 1) + rng.random(size) ** 2, 0, 1)
        # Scores exactly on thresholds, where '>' and '>=' differ.
        scores.flat[::3] = rng.choice(THRESHOLDS, scores.size)[::3]
        if dtype == np.uint8:
            scores = scores * 255
        images.append((scores.astype(dtype), gt))
    histograms = [threshold_histogram(s, g, edges=edges) for s, g in images]
    actual = crack_scores(histograms, edges=edges, threshold=threshold)
    if dtype == np.uint8:
        images = [(s / 255, g) for s, g in images]
    images = [(s.astype(np.float64), g) for s, g in images]
    expected = brute_force(images, threshold)
    assert actual == pytest.approx(expected, abs=1e-12)


def test_hand_computed_case():
    # Image 1: crack scores .9 .2, background .6 .1 ; image 2: .8 | .3 0.
    histograms = [
        threshold_histogram([[0.9, 0.2], [0.6, 0.1]], [[1, 1], [0, 0]]),
        threshold_histogram([[0.8, 0.3, 0.0]], [[1, 0, 0]]),
    ]
    scores = crack_scores(histograms, threshold=0.5)
    # At 0.5: image 1 TP 1 FP 1 FN 1; image 2 TP 1.
    assert scores['P'] == pytest.approx(2 / 3)
    assert scores['R'] == pytest.approx(2 / 3)
    assert scores['F1'] == pytest.approx(2 / 3)
    # Image 1 is best at [0.1, 0.2): TP 2 FP 1, F1 0.8, IoU 2/3 and 1/2; at
    # [0.6, 0.9): TP 1 FN 1, F1 2/3, IoU 1/2 and 2/3. Image 2 is perfect at
    # [0.3, 0.8), and has TP 1 FP 1, F1 2/3, IoU 1/2 and 1/2 at [0, 0.3).
    assert scores['OIS'] == pytest.approx((0.8 + 1) / 2)
    assert scores['ODS'] == pytest.approx((2 / 3 + 1) / 2)
    assert scores['mIoU'] == pytest.approx((7 / 12 + 1) / 2)


def test_means_do_not_depend_on_the_order_of_images():
    rng = np.random.default_rng(1)
    histograms = rng.integers(0, 50, size=(97, 2, 101))
    expected = crack_scores(histograms)
    for _ in range(5):
        assert crack_scores(rng.permutation(histograms)) == expected


def test_ignored_pixels_and_images_do_not_count():
    scores = np.array([[0.9, 0.2, 0.7]])
    full = threshold_histogram(scores[:, :2], np.array([[1, 0]]))
    part = threshold_histogram(scores, np.array([[1, 0, 255]]))
    np.testing.assert_array_equal(part, full)
    unlabelled = threshold_histogram(scores, np.full((1, 3), 255))
    assert unlabelled.sum() == 0
    assert crack_scores([part, unlabelled]) == crack_scores([full])


def test_best_thresholds_are_among_the_hundred():
    """An extra threshold serves F1, P and R, never ODS, OIS or mIoU."""
    edges = threshold_edges(0.505)
    histogram = threshold_histogram([[0.506, 0.504]], [[1, 0]], edges=edges)
    scores = crack_scores([histogram], edges=edges, threshold=0.505)
    assert scores['F1'] == scores['P'] == scores['R'] == 1
    assert scores['ODS'] == scores['OIS'] == pytest.approx(2 / 3)
    # Both pixels crack: crack IoU 1/2, background IoU 0.
    assert scores['mIoU'] == 0.25


def test_images_without_crack_lower_the_means_as_published():
    empty = threshold_histogram(np.zeros((4, 4)), np.zeros((4, 4)))
    hit = threshold_histogram(np.eye(4), np.eye(4))
    scores = crack_scores([empty, hit])
    assert scores['F1'] == scores['P'] == scores['R'] == 1
    assert scores['ODS'] == scores['OIS'] == scores['mIoU'] == 0.5


def test_logit_map_by_hand():
    logits = [[-3.0, 0.0, 2.0], [4.0, 1.0, 0.0078125]]
    # 255 * (-.75, 0, .5, 1, .25, .001953125), half to even.
    expected = [[0, 0, 128], [255, 64, 0]]
    actual = logit_map(logits)
    assert actual.dtype == np.uint8
    np.testing.assert_array_equal(actual, expected)
    # 127.5 goes to 128 and 2.5 to 2: both to the even neighbour.
    np.testing.assert_array_equal(logit_map([255.0, 2.5]), [255, 2])


def test_logit_map_without_positive_logit_is_empty():
    assert not logit_map([[-2.0, -1.0]]).any()
    assert not logit_map([[-2.0, 0.0]]).any()


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
def test_logit_map_refuses_non_finite(bad):
    with pytest.raises(ValueError, match='finite'):
        logit_map([1.0, bad])


@pytest.mark.parametrize(
    ('scores', 'gt', 'match'),
    [
        (np.zeros((2, 2)), np.zeros((2, 3)), 'one shape'),
        (np.full((1, 2), 1.5), np.zeros((1, 2)), 'probabilities'),
        (np.full((1, 2), np.nan), np.zeros((1, 2)), 'nan'),
        (np.zeros((1, 2)), np.array([[0, 128]]), r'\[128\]'),
    ],
)
def test_bad_images_are_refused(scores, gt, match):
    with pytest.raises(ValueError, match=match):
        threshold_histogram(scores, gt)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r'\[0, 1\)'):
        threshold_edges(1.0)
    with pytest.raises(ValueError, match='at least one image'):
        crack_scores(np.zeros((0, 2, 101)))
    with pytest.raises(ValueError, match='at least one image'):
        crack_scores(np.zeros((3, 2, 101)))
    with pytest.raises(ValueError, match='shape'):
        crack_scores(np.ones((3, 2, 256)))
    with pytest.raises(ValueError, match='among the edges'):
        crack_scores(np.ones((3, 2, 101)), threshold=0.123)
