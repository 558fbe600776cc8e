"""``eval_masks`` against one pass per threshold and figure:
``python -m mmseg_crackssm.analysis.bench_eval``."""

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..apis.errors import UsageError, run_cli
from ..evaluation import CrackScorer
from ..evaluation.functional import THRESHOLDS
from .measure import check_at_least_one, interleave, tell_progress
from .prediction_files import Pair, find_pairs, score_pairs

#: Largest difference of a figure that is rounding.
TOLERANCE = 1e-9
_SCRIPT = (
    'get_image_pairs',
    'cal_prf_metrics',
    'cal_mIoU_metrics',
    'cal_ODS_metrics',
    'cal_OIS_metrics',
)


def make_pairs(folder: Path, count: int, size: int = 512) -> list[Pair]:
    """Draw labels of a line or two, and score maps that nearly find them.

    Args:
        folder: Where to write them.
        count: Number of images.
        size: Their height and width.
    """
    rng = np.random.default_rng(0)
    for name in ('predictions', 'labels'):
        (folder / name).mkdir()
    for index in range(count):
        label = np.zeros((size, size), dtype=np.uint8)
        points = rng.integers(0, size, (6, 1, 2)).astype(np.int32)
        cv2.polylines(label, [points], isClosed=False, color=255, thickness=4)
        soft = cv2.GaussianBlur(label.astype(np.float32), (0, 0), 2)
        scores = (soft + rng.normal(0, 20, soft.shape)).clip(0, 255)
        for name, array in (('predictions', scores), ('labels', label)):
            path = folder / name / f'{index:04}.png'
            Image.fromarray(array.astype(np.uint8)).save(path)
    return find_pairs(folder / 'predictions', folder / 'labels').pairs


def score_by_thresholds(pairs: Sequence[Pair]) -> dict[str, float]:
    """The ``crack`` protocol as published scripts go about it.

    Each figure goes through all thresholds, each threshold through all
    images, and each time the images are compared pixel by pixel.

    Args:
        pairs: Files of 8-bit score maps and 0/255 labels.
    """
    images = [
        (np.asarray(Image.open(p)) / 255, np.asarray(Image.open(q)) > 127)
        for p, q in pairs
    ]
    counts = [_count(p > 0.5, q) for p, q in images]
    tp, fp, fn, _ = np.sum(counts, axis=0)
    miou = max(
        np.mean([_iou(*_count(p > t, q)) for p, q in images])
        for t in THRESHOLDS
    )
    ods = max(
        np.mean([_f1(*_count(p > t, q)) for p, q in images])
        for t in THRESHOLDS
    )
    ois = np.mean(
        [max(_f1(*_count(p > t, q)) for t in THRESHOLDS) for p, q in images]
    )
    # The curve of precision and recall, which the scripts compute as well.
    for threshold in THRESHOLDS:
        np.sum([_count(p > threshold, q) for p, q in images], axis=0)
    return {
        'F1': 2 * tp / (2 * tp + fp + fn),
        'P': tp / (tp + fp),
        'R': tp / (tp + fn),
        'mIoU': miou,
        'ODS': ods,
        'OIS': ois,
    }


def _count(predicted: NDArray, crack: NDArray) -> tuple[int, int, int, int]:
    return tuple(
        int(np.count_nonzero(x))
        for x in (
            predicted & crack,
            predicted & ~crack,
            ~predicted & crack,
            ~predicted & ~crack,
        )
    )


def _f1(tp: int, fp: int, fn: int, tn: int) -> float:
    return 2 * tp / max(2 * tp + fp + fn, 1)


def _iou(tp: int, fp: int, fn: int, tn: int) -> float:
    return (tp / max(tp + fp + fn, 1) + tn / max(tn + fp + fn, 1)) / 2


def load_script(path: Path) -> ModuleType:
    """``eval/evaluate.py`` of SCSegamba's release, from which published
    figures come.

    Raises:
        UsageError: If the file is not that script.
        FileNotFoundError: If it is missing.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f'--script {str(path)!r} is not a file; give eval/evaluate.py of '
            'a checkout of github.com/Karl1109/SCSegamba'
        )
    spec = importlib.util.spec_from_file_location('published_script', path)
    if spec is None or spec.loader is None:
        raise UsageError(f'--script {str(path)!r} is not a Python file')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lacking = [name for name in _SCRIPT if not hasattr(module, name)]
    if lacking:
        raise UsageError(
            f'--script {str(path)!r} has no {", ".join(lacking)}; expected '
            'eval/evaluate.py of github.com/Karl1109/SCSegamba'
        )
    return module


def score_by_script(
    script: ModuleType, pairs: Sequence[Pair]
) -> dict[str, float]:
    """The figures of :func:`load_script`'s functions, reading included.

    Args:
        script: The module.
        pairs: As for :func:`score_by_thresholds`.
    """
    with tempfile.TemporaryDirectory() as folder:
        # It reads pairs of a prefix from one folder.
        for index, pair in enumerate(pairs):
            for path, ending in zip(pair, ('pre', 'lab'), strict=True):
                Path(folder, f'{index}_{ending}.png').symlink_to(path)
        predictions, labels, *_ = script.get_image_pairs(folder, 'lab', 'pre')
    script.cal_prf_metrics(predictions, labels)
    return {
        'mIoU': script.cal_mIoU_metrics(predictions, labels),
        'ODS': script.cal_ODS_metrics(predictions, labels),
        'OIS': script.cal_OIS_metrics(predictions, labels),
    }


def score_in_one_pass(pairs: Sequence[Pair]) -> dict[str, float]:
    """The same by ``eval_masks``, intervals included."""
    scorer = CrackScorer()
    return scorer.figures(score_pairs(scorer, pairs), rounds=1000).values


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description='Time the scoring of folders of 512 x 512 images, reading '
        'included, against one pass per threshold and figure'
    )
    parser.add_argument(
        '--images', type=int, default=20, help='default: %(default)s'
    )
    parser.add_argument(
        '--rounds', type=int, default=3, help='default: %(default)s'
    )
    parser.add_argument(
        '--script',
        type=Path,
        help="eval/evaluate.py in a checkout of SCSegamba's release, to be "
        'timed as well',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    return run_cli(partial(_run, parse_args(argv)))


def _run(args: argparse.Namespace) -> None:
    check_at_least_one(images=args.images, rounds=args.rounds)
    ways: dict[str, Callable[[Sequence[Pair]], dict[str, float]]] = {
        'eval_masks': score_in_one_pass,
        'one pass per threshold and figure': score_by_thresholds,
    }
    if args.script is not None:
        ways['published script'] = partial(
            score_by_script, load_script(args.script)
        )
    with tempfile.TemporaryDirectory() as folder:
        tell_progress(f'drawing {args.images} images')
        pairs = make_pairs(Path(folder), args.images)
        figures = {name: way(pairs) for name, way in ways.items()}
        _check_same(figures)
        tell_progress('timing')
        timings = interleave(
            {name: partial(way, pairs) for name, way in ways.items()},
            rounds=args.rounds,
            warmup=0,
        )
    ours = timings['eval_masks'].median
    sys.stdout.writelines(
        f'{name}: {timing.median:.3f} s, ratio: {timing.median / ours:.0f}\n'
        for name, timing in timings.items()
    )


def _check_same(figures: dict[str, dict[str, float]]) -> None:
    for name, found in figures.items():
        wrong = [
            figure
            for figure, value in found.items()
            if abs(value - figures['eval_masks'][figure]) > TOLERANCE
        ]
        if wrong:
            raise UsageError(
                f'{name} and eval_masks differ in {", ".join(wrong)}'
            )


if __name__ == '__main__':
    sys.exit(main())
