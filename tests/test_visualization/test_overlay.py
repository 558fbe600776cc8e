import numpy as np
import pytest

from mmseg_crackssm.visualization import draw_comparison, draw_overlay
from mmseg_crackssm.visualization.overlay import (
    FALSE_COLOR,
    HIT_COLOR,
    MISSED_COLOR,
)


@pytest.fixture
def image() -> np.ndarray:
    return np.full((2, 3, 3), 50, np.uint8)


def test_overlay_paints_the_mask_alone(image):
    mask = np.array([[0, 255, 0], [0, 0, 1]])
    painted = draw_overlay(image, mask, color=(0, 10, 250), alpha=0.5)
    assert np.array_equal(painted[0, 1], [25, 30, 150])
    assert np.array_equal(painted[1, 2], [25, 30, 150])
    assert (painted[mask == 0] == 50).all()
    assert (image == 50).all()


def test_comparison_tells_hits_from_errors(image):
    mask = np.array([[1, 1, 0], [0, 1, 0]])
    label = np.array([[1, 0, 1], [0, 255, 255]])
    painted = draw_comparison(image, mask, label, alpha=1.0)
    expected = [
        [HIT_COLOR, FALSE_COLOR, MISSED_COLOR],
        [(50,) * 3, (50,) * 3, (50,) * 3],
    ]
    assert np.array_equal(painted, expected)


def test_wrong_shapes_are_refused(image):
    with pytest.raises(ValueError, match='mask has shape'):
        draw_overlay(image, np.zeros((3, 2)))
    with pytest.raises(ValueError, match='label has shape'):
        draw_comparison(image, np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match='uint8'):
        draw_overlay(image[..., 0], np.zeros((2, 3)))
