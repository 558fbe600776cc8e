"""Folders of predictions made by any program, and of their labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..apis.errors import UsageError
from ..datasets.crack_dataset import COMMON_SUFFIXES, list_names, printable
from ..datasets.file_names import files_by_name
from ..datasets.transforms import LoadCrackAnnotations
from ..evaluation import CrackScorer
from ..evaluation.scorer import ImageRecord
from ..utils.progress import track


class Pair(NamedTuple):
    """Files of one image."""

    prediction: Path
    label: Path


class _Record(NamedTuple):
    """A prediction of 0 and 1 alone is a mask or a dark score map."""

    as_levels: ImageRecord
    as_mask: ImageRecord
    #: 0 blank, 1 ambiguous, 2 levels or numbers.
    kind: int


def find_pairs(
    predictions: Path,
    labels: Path,
    pred_suffix: Sequence[str] = COMMON_SUFFIXES,
    gt_suffix: Sequence[str] = COMMON_SUFFIXES,
    skip_unpaired: bool = False,
) -> list[Pair]:
    """Pair predictions and labels by name, sub-folders being part of it.

    Args:
        predictions: Folder of predictions.
        labels: Folder of labels.
        pred_suffix: Endings that a prediction's name has beyond its label's,
            upper or lower case.
        gt_suffix: The same of labels.
        skip_unpaired: Leave files without counterpart out.

    Raises:
        FileNotFoundError: If a folder is missing or holds no such file.
        UsageError: If names do not pair; tells which.
    """
    found = [
        _list_files(folder, suffix, option)
        for folder, suffix, option in (
            (predictions, pred_suffix, '--pred-suffix'),
            (labels, gt_suffix, '--gt-suffix'),
        )
    ]
    common = sorted(found[0].keys() & found[1].keys())
    problems = [
        f'{len(alone)} {what} ({list_names(sorted(alone))})'
        for what, alone in (
            ('predictions without label', found[0].keys() - found[1].keys()),
            ('labels without prediction', found[1].keys() - found[0].keys()),
        )
        if alone
    ]
    if not common or (problems and not skip_unpaired):
        raise UsageError(
            f'{" and ".join(problems)}; {len(common)} pairs of the same name '
            f'in {printable(predictions)} and {printable(labels)}. Give what '
            'the names end in, e.g. --pred-suffix _prob.png --gt-suffix .png'
            + ('' if not common else ', or leave these out: --skip-unpaired')
        )
    return [Pair(found[0][name], found[1][name]) for name in common]


def _list_files(
    folder: Path, suffixes: Sequence[str], option: str
) -> dict[str, Path]:
    files = files_by_name(
        folder,
        suffixes,
        clash=f'have the same name; narrow {option} to one of them',
    )
    if not files:
        raise FileNotFoundError(
            f'no file in {printable(folder)} ends in '
            f'{" or ".join(suffixes)}: set {option}'
        )
    return files


def read_scores(path: Path) -> NDArray:
    """Read a prediction.

    Args:
        path: Grey image of 8 or 16 bits, mask of 1 bit, or TIFF of floats.
            RGB with equal channels is grey.

    Returns:
        (H, W): 8-bit levels, or numbers in [0, 1] (a mask of 1 bit, 16-bit
        levels over 65535, floats as they are).

    Raises:
        ValueError: If it is no such image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            mode = image.mode
            array = np.asarray(image)
    except Exception as error:  # Pillow raises a dozen types here
        raise ValueError(
            f'{printable(path)} cannot be decoded ({type(error).__name__}: '
            f'{error}); expected an image file: export it again'
        ) from error
    if mode in ('LA', 'RGBA'):
        mode, array = mode[:-1], array[..., :-1]
    if mode == 'RGB' and (array == array[..., :1]).all():
        mode = 'L'
    if mode == 'L':
        return array[..., 0] if array.ndim == 3 else array
    if mode == '1':
        return array.astype(np.float64)
    if mode.startswith('I'):
        return _of_16_bits(array, path)
    if mode == 'F':
        return _floats(array, path)
    raise ValueError(
        f'{printable(path)} has the colour mode {mode}; expected grey levels: '
        'score the probability maps or masks rather than coloured overlays'
    )


def _of_16_bits(array: NDArray, path: Path) -> NDArray[np.float64]:
    if array.min() < 0 or array.max() > 65535:
        raise ValueError(
            f'{printable(path)} holds {array.min()} to {array.max()}; '
            'expected 16 bits, 0 to 65535 for scores from 0 to 1'
        )
    return array / 65535


def _floats(array: NDArray, path: Path) -> NDArray[np.float64]:
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError(
            f'{printable(path)} holds floats from {array.min():g} to '
            f'{array.max():g}; expected scores from 0 to 1: apply the '
            'sigmoid to logits'
        )
    return array.astype(np.float64)


def score_pairs(
    scorer: CrackScorer,
    pairs: Sequence[Pair],
    loader: LoadCrackAnnotations | None = None,
    progress: bool = False,
) -> list[ImageRecord]:
    """Reduce pairs of files to the scorer's records.

    8-bit predictions of 0 and 1 alone are masks, unless others of the folder
    have further levels: then they are levels, 1 being 1/255.

    Args:
        scorer: What to score by.
        pairs: Files.
        loader: Reads the labels.
        progress: Show a progress bar on the standard error stream.

    Raises:
        UsageError: If files cannot be read or do not fit; tells which.
    """
    loader = LoadCrackAnnotations() if loader is None else loader
    records: list[_Record] = []
    problems = []
    for pair in track(pairs, progress):
        try:
            records.append(_record(scorer, pair, loader))
        except (ValueError, FileNotFoundError) as error:
            problems.append(str(error))
    if problems:
        shown = '\n  '.join(problems[:5])
        more = len(problems) - 5
        raise UsageError(
            f'{len(problems)} of {len(pairs)} images cannot be scored:\n  '
            + shown
            + (f'\n  and {more} more' if more > 0 else '')
        )
    are_masks = all(record.kind < 2 for record in records)
    return [x.as_mask if are_masks else x.as_levels for x in records]


def _record(
    scorer: CrackScorer, pair: Pair, loader: LoadCrackAnnotations
) -> _Record:
    scores = read_scores(pair.prediction)
    label = loader.transform(
        {'seg_map_path': str(pair.label), 'seg_fields': []}
    )['gt_seg_map']
    if scores.shape != label.shape:
        raise ValueError(
            f'{printable(pair.prediction)} is '
            f'{scores.shape[0]} x {scores.shape[1]} (height x width) but its '
            f'label {printable(pair.label)} is '
            f'{label.shape[0]} x {label.shape[1]}: resize the prediction'
        )
    try:
        record = scorer.record(scores, label=label)
        top = scores.max(initial=0)
        if scores.dtype != np.uint8 or top > 1:
            return _Record(record, record, kind=2)
        as_mask = scorer.record(scores * np.uint8(255), label=label)
        return _Record(record, as_mask, kind=int(top))
    except ValueError as error:
        raise ValueError(f'{printable(pair.prediction)}: {error}') from error
