"""mmseg metric of the crack protocols."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from mmseg.registry import METRICS
from numpy.typing import NDArray
from prettytable import PrettyTable
from torch import Tensor

from .functional import (
    crack_scores,
    logit_map,
    threshold_edges,
    threshold_histogram,
)

PROTOCOLS = ('crack',)
# Threshold of F1, P and R on each score map, as published.
SCORE_MAPS = {'prob': 0.5, 'logit': 0.0}
ONE_CHANNEL = ('auto', 'prob', 'logit')


@METRICS.register_module()
class CrackMetric(BaseMetric):
    """Scores of crack segmentation under the protocols of the literature.

    Each image is reduced to a fixed-size histogram of integers when it is
    processed; these are gathered, in the order of the data set and without
    the images by which a distributed sampler pads. All figures are fractions
    (mmseg's ``IoUMetric`` gives percent), unrounded, under the names ``F1``,
    ``P``, ``R``, ``mIoU``, ``ODS`` and ``OIS``, with the prefix ``crack/``.

    What is scored is ``seg_logits``, not the predicted mask. mmseg's
    ``SegTTAModel`` merges the masks of its augmentations alone and leaves the
    ``seg_logits`` of the last one, so its results are not to be scored here;
    :class:`~mmseg_crackssm.apis.tta.CrackTTAModel` merges these too.

    Args:
        protocols: Names of the protocols. ``crack``: see
            :func:`~mmseg_crackssm.evaluation.crack_scores`.
        score_map: What the thresholds are compared with. ``prob``: the crack
            probability. ``logit``: SCSegamba's published 8-bit map, see
            :func:`~mmseg_crackssm.evaluation.logit_map`. Of a one-channel
            head mmseg keeps the sigmoid in single precision alone, whose
            logit is known to 0.001 at 10, to 0.1 at 14.5 and not above 17.3:
            where an image's greatest logit exceeds 12, its levels, and with
            them the figures, are approximate.
        threshold: Where F1, P and R are taken, in [0, 1); None for the
            published one, 0.5 of the probability or 0 of the logit map.
        one_channel: What a ``seg_logits`` map of one channel holds. mmseg's
            ``EncoderDecoder`` puts the sigmoid there (``prob``); other
            models may leave the logit (``logit``). ``auto`` takes a map with
            values outside [0, 1] as logits and any other as probabilities,
            which errs only where all logits of an image lie in [0, 1]. Two
            channels are always logits of background and crack.
        ignore_index: Label of pixels that are not counted.
        collect_device: As in mmengine's ``BaseMetric``.
        prefix: As there; give one where two of these metrics run together.
        collect_dir: As there.

    Raises:
        ValueError: If an argument is not one of the values above.
    """

    default_prefix = 'crack'

    def __init__(
        self,
        protocols: Sequence[str] = PROTOCOLS,
        score_map: str = 'prob',
        threshold: float | None = None,
        one_channel: str = 'auto',
        ignore_index: int = 255,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(
            collect_device=collect_device,
            prefix=prefix,
            collect_dir=collect_dir,
        )
        unknown = [x for x in protocols if x not in PROTOCOLS]
        if isinstance(protocols, str) or not protocols or unknown:
            raise ValueError(
                f'expected protocols to be a list out of {list(PROTOCOLS)}, '
                f'got {protocols!r}'
            )
        _check_choice('score_map', score_map, SCORE_MAPS)
        _check_choice('one_channel', one_channel, ONE_CHANNEL)
        self.protocols = tuple(protocols)
        self.score_map = score_map
        self.threshold = float(
            SCORE_MAPS[score_map] if threshold is None else threshold
        )
        self.edges = threshold_edges(self.threshold)
        self.one_channel = one_channel
        self.ignore_index = ignore_index

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Reduce each image of a batch to its histogram.

        Args:
            data_batch: Not read.
            data_samples: Each with ``seg_logits`` (1 or 2, H, W) and
                ``gt_sem_seg`` (1, H, W).

        Raises:
            ValueError: If either is missing or malformed; the message names
                the image.
        """
        for sample in data_samples:
            try:
                scores, gt = self._scores(sample), _label(sample)
                histogram = threshold_histogram(
                    scores,
                    gt,
                    edges=self.edges,
                    ignore_index=self.ignore_index,
                )
            except ValueError as error:
                name = sample.get('img_path') or 'an image without img_path'
                raise ValueError(f'CrackMetric: {name}: {error}') from error
            self.results.append({'crack': histogram})

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the figures, and log them as a table.

        Args:
            results: What :meth:`process` stored, of all images.

        Returns:
            Fractions by name.
        """
        histograms = np.array([x['crack'] for x in results], dtype=np.int64)
        histograms = histograms.reshape(-1, 2, len(self.edges) + 1)
        scores = crack_scores(
            histograms, edges=self.edges, threshold=self.threshold
        )
        num_scored = int(histograms.any(axis=(1, 2)).sum())
        self._log_table(scores, num_scored, len(results) - num_scored)
        return scores

    def _log_table(
        self, scores: dict[str, float], num_scored: int, num_left_out: int
    ) -> None:
        logger = MMLogger.get_current_instance()
        left_out = (
            f' ({num_left_out} more have no valid pixel and are left out)'
            if num_left_out
            else ''
        )
        print_log(
            f'crack protocol, score map {self.score_map!r}, F1, P and R at '
            f'threshold {self.threshold:g}, {num_scored} images '
            f'scored{left_out}:',
            logger=logger,
        )
        table = PrettyTable()
        for name, value in scores.items():
            table.add_column(name, [f'{value:.4f}'])
        print_log('\n' + table.get_string(), logger=logger)

    def _scores(self, sample: dict) -> NDArray:
        """The image's score map (H, W): double, or ``uint8`` levels."""
        if 'seg_logits' not in sample:
            raise ValueError(
                'expected seg_logits in the data sample, got none: the '
                'protocol needs scores, masks alone cannot be scored'
            )
        maps = sample['seg_logits']['data'].detach().cpu().double()
        if maps.ndim != 3 or maps.shape[0] not in (1, 2):
            raise ValueError(
                'expected seg_logits of shape (1, H, W) or (2, H, W), got '
                f'{tuple(maps.shape)}: set num_classes=2, and out_channels=1 '
                'for one logit'
            )
        if torch.isnan(maps).any():
            raise ValueError(
                'expected numbers in seg_logits, got nan: the model has '
                'diverged'
            )
        is_prob = maps.shape[0] == 1 and self._holds_probabilities(maps)
        scores = maps[0] if maps.shape[0] == 1 else maps[1] - maps[0]
        if self.score_map == 'prob':
            return (scores if is_prob else scores.sigmoid()).numpy()
        return logit_map(_logit(scores) if is_prob else scores.numpy())

    def _holds_probabilities(self, one_channel: Tensor) -> bool:
        if self.one_channel == 'auto':
            return bool(((one_channel >= 0) & (one_channel <= 1)).all())
        return self.one_channel == 'prob'


def _label(sample: dict) -> NDArray:
    """The label (H, W)."""
    if 'gt_sem_seg' not in sample:
        raise ValueError(
            'expected gt_sem_seg in the data sample, got none: scoring needs '
            'labels, so let the test pipeline load them '
            '(LoadCrackAnnotations), or predict with tools/predict.py'
        )
    gt = sample['gt_sem_seg']['data'].cpu().numpy()
    return gt[0] if gt.ndim == 3 and gt.shape[0] == 1 else gt


def _logit(probabilities: Tensor) -> NDArray:
    """Logit of a sigmoid computed in single precision.

    0 and 1, where that sigmoid has saturated, become the logits at which it
    does so (17.3 either way); the closer to these, the coarser the result.
    """
    limit = 2.0**-25
    return torch.logit(probabilities.clamp(limit, 1 - limit)).numpy()


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(
            f'expected {name} to be one of {list(choices)}, got {value!r}'
        )
