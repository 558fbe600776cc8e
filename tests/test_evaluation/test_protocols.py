"""The protocols beside ``crack``, by hand and by brute force."""

import math

import numpy as np
import pytest

from mmseg_crackssm.evaluation.aggregate import (
    divide,
    mean_images,
    resampling_weights,
    sum_images,
)
from mmseg_crackssm.evaluation.crack_size import (
    measure_cracks,
    size_record,
    size_scores,
)
from mmseg_crackssm.evaluation.image_wise import image_record, image_scores
from mmseg_crackssm.evaluation.skeleton import skeleton, skeleton_length
from mmseg_crackssm.evaluation.tolerance import (
    tolerance_record,
    tolerance_scores,
)
from mmseg_crackssm.evaluation.topology import (
    topology_record,
    topology_scores,
)


def mask(*rows):
    return np.array([[char == '#' for char in row] for row in rows])


def random_mask(seed, shape=(23, 31), share=0.04):
    return np.random.default_rng(seed).random(shape) < share


def empty(shape=(5, 7)):
    return np.zeros(shape, dtype=bool)


def test_image_by_hand():
    crack = np.array([True, True, False, False])
    prob = np.array([0.9, 0.4, 0.6, 0.1])
    iou, dice = image_record(prob, crack=crack, predicted=prob > 0.5)
    assert iou == pytest.approx((1 + 1e-6) / (3 + 1e-6), abs=1e-15)
    assert dice == pytest.approx((2.6 + 1e-6) / (4 + 1e-6), abs=1e-15)


def test_image_means_and_empty_images():
    nothing = image_record(np.zeros(4), np.zeros(4, bool), np.zeros(4, bool))
    assert nothing.tolist() == [1.0, 1.0]
    missed = image_record(np.zeros(4), np.ones(4, bool), np.zeros(4, bool))
    scores = image_scores(np.stack([nothing, missed]))
    assert scores['miIoU'] == pytest.approx(0.5, abs=1e-6)
    assert scores['miDice'] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('radii', [(0,), (1, 2, 5), (2.5, 9)])
def test_tolerance_equals_brute_force(seed, radii):
    crack, predicted = random_mask(seed), random_mask(seed + 100)
    record = tolerance_record(crack, predicted, radii=radii)

    def count_near(points, others, radius):
        return sum(
            any(
                (y - v) ** 2 + (x - u) ** 2 <= radius**2
                for v, u in zip(*np.nonzero(others), strict=True)
            )
            for y, x in zip(*np.nonzero(points), strict=True)
        )

    for row, radius in zip(record, radii, strict=True):
        assert row.tolist() == [
            count_near(predicted, crack, radius),
            predicted.sum(),
            count_near(crack, predicted, radius),
            crack.sum(),
        ]


def test_tolerance_pools_and_names():
    # Columns 3 apart: right at r = 5, wrong at r = 2.
    crack, predicted = empty(), empty()
    crack[:, 1], predicted[:, 4] = True, True
    records = np.stack(
        [
            tolerance_record(crack, predicted),
            tolerance_record(crack, crack),
            tolerance_record(crack, crack),
        ]
    )
    scores = tolerance_scores(records)
    assert list(scores) == [
        *('F1@2px', 'P@2px', 'R@2px'),
        *('F1@5px', 'P@5px', 'R@5px'),
    ]
    assert scores['P@2px'] == scores['R@2px'] == pytest.approx(2 / 3)
    assert scores['F1@5px'] == 1


def test_tolerance_of_empty_masks():
    crack = random_mask(0)
    for label, predicted, expected in (
        (crack, empty(crack.shape), (0.0, 1.0, 0.0)),
        (empty(crack.shape), crack, (0.0, 0.0, 1.0)),
        (empty(), empty(), (1.0, 1.0, 1.0)),
    ):
        scores = tolerance_scores(tolerance_record(label, predicted)[None])
        assert tuple(scores[f'{x}@2px'] for x in ('F1', 'P', 'R')) == expected


def test_skeleton_length_by_hand():
    line = mask('.......', '.#####.', '.......')
    assert skeleton_length(line) == 4
    stairs = mask('#...', '.#..', '.##.', '...#')
    assert skeleton_length(stairs) == pytest.approx(2 + 2 * math.sqrt(2))
    corner = mask('##', '#.')
    assert skeleton_length(corner) == 2
    assert skeleton_length(empty()) == 0


def test_measured_width_of_a_bar():
    bar = np.zeros((40, 200), dtype=bool)
    bar[17:22, 10:190] = True
    length, width = measure_cracks(bar)
    # The skeleton ends some two pixels before each end of the bar.
    assert length == pytest.approx(180, abs=6)
    assert width == pytest.approx(5, abs=0.2)
    dot = np.zeros((9, 9), dtype=bool)
    dot[4, 4] = True
    assert measure_cracks(dot) == (1.0, 1.0)
    assert measure_cracks(np.zeros((9, 9), dtype=bool))[0] == 0


def test_size_errors():
    label = np.zeros((40, 200), dtype=bool)
    label[17:22, 10:190] = True
    thinner = label.copy()
    thinner[17] = thinner[21] = False
    length, width = size_record(label, predicted=thinner)
    assert width == pytest.approx(-2, abs=0.1) and abs(length) < 4
    nothing = size_record(label, predicted=np.zeros_like(label))
    assert nothing[0] == -measure_cracks(label)[0] and math.isnan(nothing[1])
    scores = size_scores(np.array([[3.0, 1.0], [-5.0, math.nan]]))
    assert scores == {
        'length_error': 4.0,
        'length_bias': -1.0,
        'width_error': 1.0,
        'width_bias': 1.0,
    }


def test_breaks_and_components_by_hand():
    label, predicted = empty((40, 60)), empty((40, 60))
    # One crack in two interruptions, one missing, one spurious.
    label[5:8, 5:55] = label[20:23, 5:30] = True
    predicted[5:8, 5:18] = predicted[5:8, 26:35] = True
    predicted[5:8, 44:55] = predicted[35:38, 40:50] = True
    cldice, spurious, missing, breaks = topology_record(label, predicted)
    assert (spurious, missing, breaks) == (1, 1, 2)
    line, other = skeleton(label), skeleton(predicted)
    precision = (other & label).sum() / other.sum()
    recall = (line & predicted).sum() / line.sum()
    assert 0 < recall < precision < 1
    assert cldice == pytest.approx(
        2 * precision * recall / (precision + recall)
    )


def test_gaps_within_the_radius_are_no_breaks():
    label = empty((20, 40))
    label[8:11, 3:37] = True
    predicted = label.copy()
    predicted[:, 20:24] = False
    assert topology_record(label, predicted)[1:].tolist() == [0, 0, 0]
    predicted[:, 18:26] = False
    assert topology_record(label, predicted)[1:].tolist() == [0, 0, 1]


def test_topology_of_empty_masks():
    crack = random_mask(3)
    count = topology_record(crack, empty(crack.shape))[2]
    assert count > 1
    assert topology_record(empty(), empty()).tolist() == [1, 0, 0, 0]
    assert topology_record(empty(crack.shape), crack).tolist()[0] == 0
    assert topology_record(empty(crack.shape), crack)[1] == count
    means = topology_scores(np.array([[1, 0, 2, 4], [0, 1, 0, 0]]))
    assert means == {
        'clDice': 0.5,
        'spurious': 0.5,
        'missing': 1.0,
        'breaks': 2.0,
    }


def test_sums_do_not_depend_on_the_order():
    values = np.random.default_rng(0).normal(size=(999, 3)) * 1e6
    shuffled = np.random.default_rng(1).permutation(values)
    np.testing.assert_array_equal(sum_images(values), sum_images(shuffled))


def test_weights_count_images_several_times():
    values = np.random.default_rng(0).random((5, 2))
    values[1, 0] = math.nan
    weights = np.array([[2, 0, 1, 1, 1], [0, 5, 0, 0, 0]])
    means = mean_images(values, weights=weights)
    drawn = values[[0, 0, 2, 3, 4]]
    np.testing.assert_allclose(means[0], drawn.mean(axis=0))
    assert math.isnan(means[1, 0]) and means[1, 1] == values[1, 1]
    assert divide(1, 0, empty=7.0) == 7.0


def test_resamplings():
    weights = resampling_weights(7, rounds=2000, seed=3)
    assert weights.shape == (2000, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert weights.mean(axis=0) == pytest.approx(1, abs=0.1)
    again = resampling_weights(7, rounds=2000, seed=3)
    np.testing.assert_array_equal(weights, again)
