"""Scores of a set of images under several protocols, with their intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .aggregate import resampling_weights
from .crack_size import size_record, size_scores
from .functional import crack_scores, threshold_edges, threshold_histogram
from .image_wise import image_record, image_scores
from .skeleton import skeleton
from .tolerance import RADII, tolerance_record, tolerance_scores
from .topology import topology_record, topology_scores

PROTOCOLS = ('crack', 'image', 'tolerance', 'topology', 'size')
# Threshold of F1, P and R on each score map, as published.
SCORE_MAPS = {'prob': 0.5, 'logit': 0.0}
# Two-sided; percentiles of the resamplings.
LEVEL = 0.95

#: What the protocols need of one image, by protocol; None of an image that
#: has no pixel to score.
ImageRecord = dict[str, NDArray] | None


class Interval(NamedTuple):
    """95 % of the resamplings lie between these; nan if undefined."""

    low: float
    high: float


class Figures(NamedTuple):
    """Scores of a set.

    Attributes:
        values: By name; fractions unless the protocol says otherwise.
        intervals: By name; empty without resamplings.
        num_images: How many images they were made from.
        num_left_out: How many had no pixel to score.
    """

    values: dict[str, float]
    intervals: dict[str, Interval]
    num_images: int
    num_left_out: int


class Difference(NamedTuple):
    """One figure of two sets of predictions on the same images.

    Attributes:
        first: Value of the first set.
        second: Value of the second set.
        interval: Of second - first over the same resamplings of both.
        share: Of the resamplings in which second - first has another sign
            than on all images, or is 0; doubled, at most 1: a two-sided p.
    """

    first: float
    second: float
    interval: Interval
    share: float


class _Image:
    """One image; what not every protocol reads is made when it is read."""

    def __init__(
        self,
        scores: NDArray,
        label: NDArray,
        prob: NDArray | None,
        histogram: NDArray[np.int64],
        scorer: 'CrackScorer',
    ) -> None:
        self._scores, self._label, self._prob = scores, label, prob
        self._scorer = scorer
        self.histogram = histogram

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        return self._label != self._scorer.ignore_index

    @cached_property
    def crack(self) -> NDArray[np.bool_]:
        return self._label == 1

    @cached_property
    def unit_scores(self) -> NDArray:
        is_level = self._scores.dtype == np.uint8
        return self._scores / 255 if is_level else self._scores

    @cached_property
    def predicted(self) -> NDArray[np.bool_]:
        return (self.unit_scores > self._scorer.threshold) & self.valid

    @cached_property
    def lines(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Skeletons of label and prediction."""
        return skeleton(self.crack), skeleton(self.predicted)

    @property
    def prob(self) -> NDArray:
        if self._prob is not None:
            return self._prob
        if self._scorer.score_map == 'prob':
            return self.unit_scores
        raise ValueError(
            "the image protocol needs probabilities (score_map='prob'): the "
            'logit map does not hold them'
        )


@dataclass(frozen=True)
class _Protocol:
    record: Callable[[_Image], NDArray]
    scores: Callable[..., dict[str, NDArray]]


class CrackScorer:
    """Reduces images to records of fixed size, and records to figures.

    Args:
        protocols: Out of ``PROTOCOLS``. ``crack``:
            :func:`~.functional.crack_scores`; ``image``:
            :mod:`.image_wise`; ``tolerance``: :mod:`.tolerance`;
            ``topology``: :mod:`.topology`; ``size``: :mod:`.crack_size`.
        score_map: What scores are: ``prob``, crack probabilities, or
            ``logit``, SCSegamba's 8-bit map (:func:`~.functional.logit_map`).
        threshold: A pixel whose score exceeds it is predicted crack, in
            [0, 1); None for the published one, 0.5 of the probability or 0 of
            the logit map. ODS, OIS and mIoU of ``crack`` have their own.
        radii: Of ``tolerance``, in pixels.
        ignore_index: Label of pixels that do not count.

    Raises:
        ValueError: If an argument is none of these.
    """

    def __init__(
        self,
        protocols: Sequence[str] = ('crack',),
        score_map: str = 'prob',
        threshold: float | None = None,
        radii: Sequence[float] = RADII,
        ignore_index: int = 255,
    ) -> None:
        unknown = [x for x in protocols if x not in PROTOCOLS]
        if isinstance(protocols, str) or not protocols or unknown:
            raise ValueError(
                f'expected protocols to be a list out of {list(PROTOCOLS)}, '
                f'got {protocols!r}'
            )
        if score_map not in SCORE_MAPS:
            raise ValueError(
                f'expected score_map to be one of {list(SCORE_MAPS)}, got '
                f'{score_map!r}'
            )
        if not radii or not all(radius >= 0 for radius in radii):
            raise ValueError(
                f'expected radii of at least 0 pixels, got {radii!r}'
            )
        self.score_map = score_map
        self.threshold = float(
            SCORE_MAPS[score_map] if threshold is None else threshold
        )
        self.edges = threshold_edges(self.threshold)
        self.radii = tuple(dict.fromkeys(radii))
        self.ignore_index = ignore_index
        available = self._make_protocols()
        self.protocols = {
            name: available[name] for name in dict.fromkeys(protocols)
        }

    def record(
        self, scores: NDArray, label: NDArray, prob: NDArray | None = None
    ) -> ImageRecord:
        """Reduce one image.

        Args:
            scores: The score map (H, W), numbers in [0, 1] or 8-bit levels.
            label: (H, W): 0 background, 1 crack, ``ignore_index``.
            prob: Crack probabilities (H, W), which ``image`` needs; taken
                from ``scores`` where these are probabilities.

        Returns:
            One array per protocol, or None if no pixel counts.

        Raises:
            ValueError: If shapes or values are not as said, or ``image`` has
                no probabilities.
        """
        scores, label = np.asarray(scores), np.asarray(label)
        histogram = threshold_histogram(
            scores, label, edges=self.edges, ignore_index=self.ignore_index
        )
        if not histogram.any():
            return None
        image = _Image(scores, label, prob, histogram, scorer=self)
        return {
            name: protocol.record(image)
            for name, protocol in self.protocols.items()
        }

    def figures(
        self, records: Sequence[ImageRecord], rounds: int = 0, seed: int = 0
    ) -> Figures:
        """Scores of a set of images.

        Args:
            records: One per image.
            rounds: Resamplings for the intervals, 0 for none.
            seed: Of the resamplings.

        Raises:
            ValueError: If no image has a pixel to score.
        """
        kept = [record for record in records if record is not None]
        if not kept:
            raise ValueError(
                'expected at least one image with valid pixels, got none of '
                f'{len(records)}: check the data set, and that its masks are '
                'not all ignore_index'
            )
        arrays = self._stack(kept)
        intervals = {}
        if rounds:
            weights = resampling_weights(len(kept), rounds=rounds, seed=seed)
            intervals = {
                name: _interval(values)
                for name, values in self._scores(arrays, weights).items()
            }
        return Figures(
            values={k: float(v) for k, v in self._scores(arrays).items()},
            intervals=intervals,
            num_images=len(kept),
            num_left_out=len(records) - len(kept),
        )

    def compare(
        self,
        first: Sequence[ImageRecord],
        second: Sequence[ImageRecord],
        rounds: int = 1000,
        seed: int = 0,
    ) -> dict[str, Difference]:
        """Compare two sets of predictions on the same images.

        Args:
            first: One record per image.
            second: Records of the same images in the same order.
            rounds: Resamplings.
            seed: Of the resamplings.

        Raises:
            ValueError: If the two are not of the same images, as far as their
                number and which of them have pixels to score tell.
        """
        pairs = list(zip(first, second, strict=False))
        if len(first) != len(second) or any(
            (a is None) != (b is None) for a, b in pairs
        ):
            raise ValueError(
                'expected two sets of predictions on the same images, got '
                f'{len(first)} and {len(second)} images, or other labels'
            )
        kept = [(a, b) for a, b in pairs if a is not None and b is not None]
        if not kept:
            raise ValueError('expected images with valid pixels, got none')
        weights = resampling_weights(len(kept), rounds=rounds, seed=seed)
        arrays = [self._stack(side) for side in zip(*kept, strict=True)]
        values = [self._scores(x) for x in arrays]
        resampled = [self._scores(x, weights) for x in arrays]
        return {
            name: _difference(
                values[0][name],
                values[1][name],
                resampled[1][name] - resampled[0][name],
            )
            for name in values[0]
        }

    def _make_protocols(self) -> dict[str, _Protocol]:
        return {
            'crack': _Protocol(
                lambda image: image.histogram,
                partial(
                    crack_scores, edges=self.edges, threshold=self.threshold
                ),
            ),
            'image': _Protocol(_image_record, image_scores),
            'tolerance': _Protocol(
                lambda image: tolerance_record(
                    image.crack, image.predicted, radii=self.radii
                ),
                partial(tolerance_scores, radii=self.radii),
            ),
            'topology': _Protocol(
                lambda image: topology_record(
                    image.crack, image.predicted, lines=image.lines
                ),
                topology_scores,
            ),
            'size': _Protocol(
                lambda image: size_record(
                    image.crack, image.predicted, lines=image.lines
                ),
                size_scores,
            ),
        }

    def _stack(
        self, records: Sequence[dict[str, NDArray]]
    ) -> dict[str, NDArray]:
        return {
            name: np.stack([record[name] for record in records])
            for name in self.protocols
        }

    def _scores(
        self, arrays: dict[str, NDArray], weights: NDArray | None = None
    ) -> dict[str, NDArray]:
        scores = {}
        for name, protocol in self.protocols.items():
            scores |= protocol.scores(arrays[name], weights=weights)
        return scores


def _image_record(image: _Image) -> NDArray:
    if image.prob is None:
        raise ValueError(
            "the image protocol needs probabilities (score_map='prob'): the "
            'logit map does not hold them'
        )
    return image_record(
        image.prob[image.valid],
        image.crack[image.valid],
        image.predicted[image.valid],
    )


def _interval(values: NDArray) -> Interval:
    values = values[~np.isnan(values)]
    if not values.size:
        return Interval(float('nan'), float('nan'))
    tail = (1 - LEVEL) / 2
    return Interval(*np.quantile(values, [tail, 1 - tail]).tolist())


def _difference(
    first: NDArray, second: NDArray, resampled: NDArray
) -> Difference:
    sign = np.sign(second - first)
    defined = resampled[~np.isnan(resampled)]
    other = np.mean(np.sign(defined) != sign) if sign else 1.0
    return Difference(
        first=float(first),
        second=float(second),
        interval=_interval(resampled),
        share=min(1.0, 2 * float(other)),
    )
