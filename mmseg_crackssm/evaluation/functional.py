"""Scores of crack segmentation as pure functions on NumPy arrays.

An image enters every score of the ``crack`` protocol through one small
histogram alone: how many background and how many crack pixels have a score
between each two neighbouring thresholds. One pass over the pixels makes it;
cumulative sums over its bins then give the confusion counts at all thresholds
at once. The counts are integers and the means over images are exactly
rounded sums, so that no figure depends on the order of the images or on how
they were spread over processes.

Per image, ``F1 = 2 TP / (2 TP + FP + FN)`` and
``IoU = (crack IoU + background IoU) / 2``. Divisions of zero by zero are
settled as follows; the first three are the published script's own results,
in the others it yields nan.

==============================  ========================================
case                            value
==============================  ========================================
image without crack             F1 = 0 in ODS and OIS, also where nothing
                                is predicted
image without crack, and none   IoU = 0
predicted
pooled, nothing predicted       P = 1
pooled, no crack in the set     R = 1 (nothing was missed)
pooled, neither of the two      F1 = 1
pooled, no true positive else   F1 = 0
image all crack, all predicted  background IoU = 1
==============================  ========================================

Note the difference for images without crack: they lower ODS, OIS and mIoU
even where the prediction is right, because the published figures are made so.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .aggregate import divide, mean_images, sum_images

# The published script's own values, rounding included.
THRESHOLDS = np.arange(0.0, 1.0, 0.01)
THRESHOLDS.flags.writeable = False


class ConfusionCounts(NamedTuple):
    """Pixel counts, crack being positive; arrays of one shape."""

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    tn: NDArray[np.int64]


def logit_map(logits: ArrayLike) -> NDArray[np.uint8]:
    """The 8-bit score map of SCSegamba's published figures.

    ``255 * logit / max(logit)``, rounded half to even as OpenCV does when it
    writes the map, negative values cut to 0. A map without any positive
    logit is all 0 (the published arithmetic would turn it all white, the
    quotient of two negative numbers being positive).

    Args:
        logits: Finite logits of the crack class, any shape.

    Returns:
        Levels 0..255, same shape.

    Raises:
        ValueError: If a logit is infinite or nan.
    """
    logits = np.asarray(logits, dtype=np.float32)
    if not np.isfinite(logits).all():
        raise ValueError(
            'expected finite logits for the 8-bit logit map, got inf or nan: '
            "the model has diverged, or use score_map='prob'"
        )
    peak = logits.max(initial=0)
    if peak == 0:
        return np.zeros(logits.shape, dtype=np.uint8)
    return np.rint(255 * (logits / peak)).clip(0, 255).astype(np.uint8)


def threshold_edges(*extra: float) -> NDArray[np.float64]:
    """The protocol's 100 thresholds and further ones, sorted, each once.

    Args:
        extra: Further thresholds in [0, 1).

    Returns:
        (K,), K >= 100: the ``edges`` of a histogram.

    Raises:
        ValueError: If a threshold is outside [0, 1).
    """
    for threshold in extra:
        if not 0 <= threshold < 1:
            raise ValueError(
                f'expected a threshold in [0, 1), got {threshold}; it is '
                'compared with scores between 0 and 1'
            )
    return np.union1d(THRESHOLDS, np.asarray(extra, dtype=np.float64))


def threshold_histogram(
    scores: ArrayLike,
    gt: ArrayLike,
    edges: NDArray[np.float64] = THRESHOLDS,
    ignore_index: int = 255,
) -> NDArray[np.int64]:
    """Count an image's pixels by class and by the thresholds they pass.

    A pixel is predicted crack at threshold ``t`` if ``score > t``, compared
    in double precision without quantisation.

    Args:
        scores: Scores in [0, 1], or 8-bit levels (``uint8``), whose score is
            ``level / 255``; any shape.
        gt: Labels, same shape: 0 background, 1 crack, ``ignore_index``.
        edges: Ascending thresholds (K,).
        ignore_index: Label of pixels that are not counted.

    Returns:
        (2, K + 1): row 0 background, row 1 crack; column k counts the pixels
        whose score exceeds exactly k thresholds.

    Raises:
        ValueError: If shapes differ, a score is outside [0, 1] or nan, or a
            label is none of the three.
    """
    scores, gt = np.asarray(scores), np.asarray(gt)
    if scores.shape != gt.shape:
        raise ValueError(
            f'expected scores and label of one shape, got {scores.shape} and '
            f'{gt.shape}: resize the scores to the label'
        )
    valid = gt != ignore_index
    if not valid.all():
        scores, gt = scores[valid], gt[valid]
    crack = gt == 1
    if not (crack | (gt == 0)).all():
        values = np.unique(gt[~crack & (gt != 0)])[:8].tolist()
        raise ValueError(
            f'expected labels 0 (background), 1 (crack) or {ignore_index} '
            f'(ignored), got also {values}: load masks by '
            'LoadCrackAnnotations, which maps them to 0 and 1'
        )
    if scores.dtype == np.uint8:
        bins, levels = 256, scores.astype(np.intp)
    else:
        # Not (0 <= score <= 1) is true for nan, too.
        if not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError(
                'expected scores in [0, 1], got values outside or nan: pass '
                'probabilities, not logits'
            )
        bins = len(edges) + 1
        levels = np.searchsorted(edges, scores.astype(np.float64), 'left')
    counts = np.bincount((levels + bins * crack).ravel(), minlength=2 * bins)
    histogram = counts.reshape(2, bins).astype(np.int64, copy=False)
    if scores.dtype == np.uint8:
        return regroup_levels(histogram, edges=edges)
    return histogram


def regroup_levels(
    level_histogram: ArrayLike, edges: NDArray[np.float64] = THRESHOLDS
) -> NDArray[np.int64]:
    """Turn histograms of 8-bit levels into histograms by threshold.

    Args:
        level_histogram: (..., 256) pixel counts of the levels 0..255.
        edges: Ascending thresholds (K,).

    Returns:
        (..., K + 1) as :func:`threshold_histogram` has it.
    """
    level_histogram = np.asarray(level_histogram, dtype=np.int64)
    passed = np.searchsorted(edges, np.arange(256) / 255, side='left')
    member = passed[:, None] == np.arange(len(edges) + 1)
    return level_histogram @ member.astype(np.int64)


def confusion_counts(histogram: ArrayLike) -> ConfusionCounts:
    """Confusion counts at every threshold of a histogram.

    Args:
        histogram: (..., 2, K + 1) as :func:`threshold_histogram` has it.

    Returns:
        Four arrays (..., K).
    """
    histogram = np.asarray(histogram, dtype=np.int64)
    below = histogram.cumsum(axis=-1)
    total = below[..., -1:]
    tn, fn = below[..., 0, :-1], below[..., 1, :-1]
    return ConfusionCounts(
        tp=total[..., 1, :] - fn, fp=total[..., 0, :] - tn, fn=fn, tn=tn
    )


def precision_recall_f1(
    tp: ArrayLike, fp: ArrayLike, fn: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision, recall and F1 of pooled counts.

    Args:
        tp: True positives, any shape.
        fp: False positives.
        fn: False negatives.

    Returns:
        P, R and F1, fractions. Without predictions P is 1, without crack R
        is 1, without either F1 is 1.
    """
    tp, fp, fn = np.asarray(tp), np.asarray(fp), np.asarray(fn)
    return (
        divide(tp, tp + fp, empty=1.0),
        divide(tp, tp + fn, empty=1.0),
        divide(2 * tp, 2 * tp + fp + fn, empty=1.0),
    )


def crack_scores(
    histograms: ArrayLike,
    edges: NDArray[np.float64] = THRESHOLDS,
    threshold: float = 0.5,
    weights: NDArray | None = None,
) -> dict[str, NDArray[np.float64]]:
    """The ``crack`` protocol (tables of DeepCrack, SCSegamba, CrackSSM).

    Images without any valid pixel (all-zero histograms) are left out.

    Args:
        histograms: (n, 2, K + 1), one per image, as
            :func:`threshold_histogram` has them.
        edges: Thresholds of the histograms, from :func:`threshold_edges`.
        threshold: One of ``edges``: where F1, P and R are taken. The
            published figures take 0 of the logit map.
        weights: How often each image counts, (R, n), in R resamplings; None
            for each once. Images without any valid pixel need to be left out
            beforehand.

    Returns:
        Fractions, of shape () or (R,): ``F1``, ``P``, ``R`` from the counts
        of all images together; ``mIoU``, the best over the 100 thresholds of
        the mean over images of (crack IoU + background IoU) / 2; ``ODS``, the
        best over thresholds of the mean of the images' F1; ``OIS``, the mean
        of the images' best F1.

    Raises:
        ValueError: If no image has a valid pixel, or the histograms do not
            fit the edges, or ``threshold`` is none of them.
    """
    histograms = np.asarray(histograms)
    if histograms.ndim != 3 or histograms.shape[1:] != (2, len(edges) + 1):
        raise ValueError(
            f'expected histograms of shape (n, 2, {len(edges) + 1}), got '
            f'{histograms.shape}: make them with the same edges'
        )
    if weights is None:
        histograms = histograms[histograms.any(axis=(1, 2))]
    if not len(histograms):
        raise ValueError(
            'expected at least one image with valid pixels, got none: check '
            'the data set, and that its masks are not all ignore_index'
        )
    at = np.flatnonzero(edges == threshold)
    if not len(at):
        raise ValueError(
            f'expected a threshold among the edges, got {threshold}: make '
            f'the histograms with edges=threshold_edges({threshold})'
        )
    counts = confusion_counts(histograms)
    tp, fp, fn, _ = (sum_images(x[:, at[0]], weights=weights) for x in counts)
    precision, recall, f1 = precision_recall_f1(tp=tp, fp=fp, fn=fn)
    on_grid = np.isin(edges, THRESHOLDS)
    image_f1, image_iou = _image_f1_iou(
        ConfusionCounts(*(x[:, on_grid] for x in counts))
    )
    return {
        'F1': f1,
        'P': precision,
        'R': recall,
        'mIoU': mean_images(image_iou, weights=weights).max(axis=-1),
        'ODS': mean_images(image_f1, weights=weights).max(axis=-1),
        'OIS': mean_images(image_f1.max(axis=1), weights=weights),
    }


def _image_f1_iou(
    counts: ConfusionCounts,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """F1 and two-class IoU of each image at each threshold, (n, K) each."""
    tp, fp, fn, tn = counts
    wrong = fp + fn
    f1 = divide(2 * tp, 2 * tp + wrong, empty=0.0)
    crack = divide(tp, tp + wrong, empty=0.0)
    background = divide(tn, tn + wrong, empty=1.0)
    iou = (crack + background) / 2
    # The published script counts such an image as 0 for both classes.
    return f1, np.where(tp + wrong == 0, 0.0, iou)
