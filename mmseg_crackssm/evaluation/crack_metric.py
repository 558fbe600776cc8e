"""mmseg metric of the crack protocols."""

import os
from collections.abc import Mapping, Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from mmseg.registry import METRICS
from numpy.typing import NDArray
from prettytable import PrettyTable
from torch import Tensor

from .functional import logit_map
from .scorer import CrackScorer, Figures
from .tolerance import RADII

ONE_CHANNEL = ('auto', 'prob', 'logit')


@METRICS.register_module()
class CrackMetric(BaseMetric):
    """Scores of crack segmentation under the protocols of the literature.

    Each image is reduced to a few numbers or a histogram when it is
    processed; these are gathered, in the order of the data set and without
    the images by which a distributed sampler pads. Shares are fractions
    (mmseg's ``IoUMetric`` gives percent), unrounded. The names are those of
    the protocols' own documentation, ``F1``, ``mIoU``, ``F1@2px`` and so on,
    with the prefix ``crack/``.

    Beside each figure the table shows a 95 % interval, from resampling the
    images with replacement: how far the figure would move on another draw of
    as many images. These are returned as ``F1_low`` and ``F1_high``.

    What is scored is ``seg_logits``, not the predicted mask. mmseg's
    ``SegTTAModel`` merges the masks of its augmentations alone and leaves the
    ``seg_logits`` of the last one, so its results are not to be scored here;
    :class:`~mmseg_crackssm.apis.tta.CrackTTAModel` merges these too.

    Args:
        protocols: Out of ``crack``, ``image``, ``tolerance``, ``topology`` and
            ``size``; see :class:`~.scorer.CrackScorer`.
        score_map: What the thresholds are compared with. ``prob``: the crack
            probability. ``logit``: SCSegamba's published 8-bit map, see
            :func:`~mmseg_crackssm.evaluation.logit_map`. Of a one-channel
            head mmseg keeps the sigmoid in single precision alone, whose
            logit is known to 0.001 at 10, to 0.1 at 14.5 and not above 17.3:
            where an image's greatest logit exceeds 12, its levels, and with
            them the figures, are approximate.
        threshold: Where F1, P and R are taken, and masks for the other
            protocols, in [0, 1); None for the published one, 0.5 of the
            probability or 0 of the logit map.
        radii: Of the ``tolerance`` protocol, in pixels.
        rounds: Resamplings for the intervals; 0 for no intervals.
        sources: Folder by name of data sets that are evaluated together; the
            figures of the images below each folder follow those of all, as
            ``crack/<name>/F1``. An image below none of them is an error.
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
        protocols: Sequence[str] = ('crack',),
        score_map: str = 'prob',
        threshold: float | None = None,
        radii: Sequence[float] = RADII,
        rounds: int = 1000,
        sources: Mapping[str, str] | None = None,
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
        if one_channel not in ONE_CHANNEL:
            raise ValueError(
                f'expected one_channel to be one of {list(ONE_CHANNEL)}, got '
                f'{one_channel!r}'
            )
        if rounds < 0:
            raise ValueError(f'expected rounds of at least 0, got {rounds}')
        self.scorer = CrackScorer(
            protocols=protocols,
            score_map=score_map,
            threshold=threshold,
            radii=radii,
            ignore_index=ignore_index,
        )
        self.rounds = rounds
        self.sources = dict(sources or {})
        self.one_channel = one_channel

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Reduce each image of a batch to its record.

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
                scores, prob = self._scores(sample)
                record = self.scorer.record(
                    scores, label=_label(sample), prob=prob
                )
                source = self._source_of(sample)
            except ValueError as error:
                name = sample.get('img_path') or 'an image without img_path'
                raise ValueError(f'CrackMetric: {name}: {error}') from error
            self.results.append((source, record))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the figures, and log them as a table.

        Args:
            results: What :meth:`process` stored, of all images.

        Returns:
            Fractions by name.
        """
        scores = self._figures(results)
        for name in self.sources:
            of_source = [x for x in results if x[0] == name]
            if of_source:
                figures = self._figures(of_source, name)
                scores |= {f'{name}/{k}': v for k, v in figures.items()}
        return scores

    def _figures(self, results: list, source: str = '') -> dict[str, float]:
        figures = self.scorer.figures(
            [record for _, record in results], rounds=self.rounds
        )
        self._log_table(figures, source)
        bounds = {
            f'{name}_{bound}': getattr(interval, bound)
            for name, interval in figures.intervals.items()
            for bound in interval._fields
        }
        return figures.values | bounds

    def _source_of(self, sample: dict) -> str | None:
        if not self.sources:
            return None
        path = os.path.abspath(sample.get('img_path') or '')
        for name, folder in self.sources.items():
            if path.startswith(os.path.join(os.path.abspath(folder), '')):
                return name
        raise ValueError(
            f'expected an image below one of the sources {self.sources}: '
            'name the folder (data_root) of each data set'
        )

    def _log_table(self, figures: Figures, source: str) -> None:
        logger = MMLogger.get_current_instance()
        left_out = (
            f' ({figures.num_left_out} more have no valid pixel and are left '
            'out)'
            if figures.num_left_out
            else ''
        )
        print_log(
            f'{source}{": " if source else ""}'
            f'{" ".join(self.scorer.protocols)}: score map '
            f'{self.scorer.score_map!r}, threshold '
            f'{self.scorer.threshold:g}, {figures.num_images} images '
            f'scored{left_out}:',
            logger=logger,
        )
        print_log('\n' + figures_table(figures).get_string(), logger=logger)

    def _scores(self, sample: dict) -> tuple[NDArray, NDArray]:
        """Score map, double or ``uint8`` levels, and probabilities, (H, W)."""
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
        prob = (scores if is_prob else scores.sigmoid()).numpy()
        if self.scorer.score_map == 'prob':
            return prob, prob
        logits = _logit(scores) if is_prob else scores.numpy()
        return logit_map(logits), prob

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


def figures_table(figures: Figures) -> PrettyTable:
    """Figures, one per row, with their intervals if they have any."""
    table = PrettyTable(['figure', 'value', '95 % interval'])
    table.align = 'r'
    table.align['figure'] = 'l'
    for name, value in figures.values.items():
        interval = figures.intervals.get(name)
        bounds = (
            '' if interval is None else '{:.4f} to {:.4f}'.format(*interval)
        )
        table.add_row([name, f'{value:.4f}', bounds])
    return table
