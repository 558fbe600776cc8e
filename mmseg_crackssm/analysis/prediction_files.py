"""Folders of predictions made by any program, and of their labels."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..apis.errors import UsageError
from ..datasets.crack_dataset import COMMON_SUFFIXES, list_names, printable
from ..datasets.file_names import files_by_name
from ..datasets.mask_reading import (
    INVERTED_SHARE,
    UnclearMaskError,
    crack_share,
    decode_mask,
    to_grey,
)
from ..datasets.transforms import LoadCrackAnnotations
from ..evaluation import CrackScorer
from ..evaluation.scorer import ImageRecord
from ..utils.progress import track
from .prediction_levels import FolderLevels

#: What to do about a label that has no single reading.
SAY_CRACK = (
    'Say what is crack: --gt-crack-values LEVEL... for labels (0 where cracks '
    'are dark), --gt-threshold 127 for grey levels, --gt-ignore-values '
    'LEVEL... for pixels to leave out; 0/1 and 0/255 need none of them, and '
    'colours must be converted to these'
)


class Pair(NamedTuple):
    """Files of one image."""

    prediction: Path
    label: Path


class Pairing(NamedTuple):
    """Files of all images, and the names of what is left out.

    Attributes:
        pairs: Files of each image.
        predictions: Names of predictions without label.
        labels: Names of labels without prediction.
    """

    pairs: list[Pair]
    predictions: list[str]
    labels: list[str]

    def problems(self) -> str:
        """What is left out, in words; empty if nothing is."""
        return ' and '.join(
            f'{len(alone)} {what} ({list_names(alone)})'
            for what, alone in (
                ('predictions without label', self.predictions),
                ('labels without prediction', self.labels),
            )
            if alone
        )


class _Record(NamedTuple):
    """A prediction of 0 and 1 alone is a mask or a dark score map."""

    as_levels: ImageRecord
    as_mask: ImageRecord
    #: Type of its levels.
    dtype: np.dtype
    #: Whether more than half of its label is crack.
    inverted: bool


def find_pairs(
    predictions: Path,
    labels: Path,
    pred_suffix: Sequence[str] = COMMON_SUFFIXES,
    gt_suffix: Sequence[str] = COMMON_SUFFIXES,
    skip_unpaired: bool = False,
) -> Pairing:
    """Pair predictions and labels by name, sub-folders being part of it.

    Args:
        predictions: Folder of predictions.
        labels: Folder of labels.
        pred_suffix: Endings that a prediction's name has beyond its label's,
            upper or lower case.
        gt_suffix: The same of labels.
        skip_unpaired: Leave files without counterpart out.

    Returns:
        The pairs in the order of their names, and what is left out.

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
    pairing = Pairing(
        [Pair(found[0][name], found[1][name]) for name in common],
        predictions=sorted(found[0].keys() - found[1].keys()),
        labels=sorted(found[1].keys() - found[0].keys()),
    )
    problems = pairing.problems()
    if not common or (problems and not skip_unpaired):
        raise UsageError(
            f'{problems}; {len(common)} pairs of the same name '
            f'in {printable(predictions)} and {printable(labels)}. Give what '
            'the names end in, e.g. --pred-suffix _prob.png --gt-suffix .png'
            + ('' if not common else ', or leave these out: --skip-unpaired')
        )
    return pairing


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
            RGB with equal channels is grey; a palette is its greys, or its
            indices if it has colours.

    Returns:
        (H, W): levels of 8 or 16 bits, uint8 or uint16; or numbers in [0, 1],
        of a mask of 1 bit or of floats.

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
    if mode == 'P':
        with suppress(UnclearMaskError):
            return to_grey(image, str(path))
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


def _of_16_bits(array: NDArray, path: Path) -> NDArray[np.uint16]:
    if array.min() < 0 or array.max() > 65535:
        raise ValueError(
            f'{printable(path)} holds {array.min()} to {array.max()}; '
            'expected 16 bits, 0 to 65535 for scores from 0 to 1: scale it '
            'to that'
        )
    return array.astype(np.uint16)


def _floats(array: NDArray, path: Path) -> NDArray[np.float64]:
    if np.isnan(array).any():
        raise ValueError(
            f'{printable(path)} holds nan in {np.isnan(array).sum()} pixels; '
            'expected scores from 0 to 1: mend what made it'
        )
    low, high = array.min(), array.max()
    if low < 0 or high > 1:
        remedy = (
            'divide them by 255'
            if low >= 0 and 64 < high <= 255
            else 'apply the sigmoid to logits'
        )
        raise ValueError(
            f'{printable(path)} holds floats from {low:g} to {high:g}; '
            f'expected scores from 0 to 1: {remedy}'
        )
    return array.astype(np.float64)


def score_pairs(
    scorer: CrackScorer,
    pairs: Sequence[Pair],
    loader: LoadCrackAnnotations | None = None,
    progress: bool = False,
) -> list[ImageRecord]:
    """Reduce pairs of files to the scorer's records.

    Predictions of 0 and 1 alone are masks, unless others of the folder and of
    the same bit depth have further levels: then they are levels, 1 being
    1/255.

    Args:
        scorer: What to score by.
        pairs: Files.
        loader: Reads the labels.
        progress: Show a progress bar on the standard error stream.

    Raises:
        UsageError: If files cannot be read or do not fit, if predictions
            together are no scores, or most labels inverted; tells which.
    """
    loader = LoadCrackAnnotations() if loader is None else loader
    found = {
        np.dtype(kind): FolderLevels(np.iinfo(kind).max)
        for kind in (np.uint8, np.uint16)
    }
    records: list[_Record] = []
    problems = []
    for pair in track(pairs, progress):
        try:
            records.append(_record(scorer, pair, loader, found))
        except UnclearMaskError as error:
            problems.append(f'{error.reason}. {SAY_CRACK}')
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
    for levels in found.values():
        levels.check()
    inverted = [record.inverted for record in records]
    if sum(inverted) > len(records) / 2 and not loader.is_told_crack:
        raise UsageError(
            f'{sum(inverted)} of {len(records)} labels are more than half '
            f'crack, e.g. {printable(pairs[inverted.index(True)].label)}: if '
            'cracks are dark in them, give --gt-crack-values 0; if this is '
            'right, the value that is crack (255 or 1)'
        )
    return [
        x.as_mask
        if x.dtype in found and found[x.dtype].are_masks
        else x.as_levels
        for x in records
    ]


def _record(
    scorer: CrackScorer,
    pair: Pair,
    loader: LoadCrackAnnotations,
    found: dict[np.dtype, FolderLevels],
) -> _Record:
    scores = read_scores(pair.prediction)
    path = str(pair.label)
    label = loader.read(
        decode_mask(pair.label.read_bytes(), path), {'seg_map_path': path}
    )
    if scores.shape != label.shape:
        raise ValueError(
            f'{printable(pair.prediction)} is '
            f'{scores.shape[0]} x {scores.shape[1]} (height x width) but its '
            f'label {printable(pair.label)} is '
            f'{label.shape[0]} x {label.shape[1]}: resize the prediction'
        )
    if scores.dtype in found:
        found[scores.dtype].add(scores, pair.prediction)
    full = found[scores.dtype].full if scores.dtype in found else 1
    unit = scores / full if full > 255 else scores
    try:
        as_levels = as_mask = scorer.record(unit, label=label)
        if full > 1 and scores.max(initial=0) == 1:
            mask = scores.astype(np.uint8) * np.uint8(255)
            as_mask = scorer.record(mask, label=label)
    except ValueError as error:
        raise ValueError(f'{printable(pair.prediction)}: {error}') from error
    inverted = crack_share(label) > INVERTED_SHARE
    return _Record(as_levels, as_mask, dtype=scores.dtype, inverted=inverted)
