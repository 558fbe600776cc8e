"""What may be wrong with the files of a data set."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image, ImageOps

from .crack_dataset import printable
from .mask_reading import (
    INVERTED_SHARE,
    crack_share,
    decode_mask,
    jpeg_orientation,
)
from .transforms import LoadCrackAnnotations

#: Side of the perceptual hash: 256 bits. Of unrelated CFD images some 100
#: differ at least; of an image halved and compressed again 14.
HASH_SIDE = 16
#: Bits by which near-duplicates differ at most.
MAX_DISTANCE = 40

#: Kinds of findings with which training or its scores are not sound.
ERRORS = (
    *('unusable', 'unreadable', 'unpaired', 'size', 'values', 'no crack'),
    *('inverted split', 'duplicate'),
)
#: Kinds that call for a look.
WARNINGS = ('orientation', 'inverted', 'near-duplicate')


class Finding(NamedTuple):
    """Something wrong with a file.

    Attributes:
        kind: Out of ``ERRORS`` and ``WARNINGS``.
        split: The split it was found in.
        path: The file.
        message: What is wrong, and what to do.
    """

    kind: str
    split: str
    path: str
    message: str

    @property
    def is_error(self) -> bool:
        return self.kind in ERRORS


class Sample(NamedTuple):
    """One pair to check."""

    split: str
    image: str
    mask: str
    loader: LoadCrackAnnotations


@dataclass
class Checked:
    """One pair, checked.

    Attributes:
        sample: The pair.
        findings: What is wrong with it.
        size: Height and width of the image; None if it cannot be read.
        mode: Pillow's mode of the mask.
        levels: Its grey levels, at most 256; empty where it has colours.
        share: Share of crack pixels; None if it cannot be told.
        digest: Of the image's pixels.
        bits: Perceptual hash of the image, (256,) booleans.
    """

    sample: Sample
    findings: list[Finding] = field(default_factory=list)
    size: tuple[int, int] | None = None
    mode: str = ''
    levels: tuple[int, ...] = ()
    share: float | None = None
    digest: str = ''
    bits: np.ndarray | None = None

    def add(self, kind: str, path: str, message: str) -> None:
        """Note something wrong."""
        self.findings.append(Finding(kind, self.sample.split, path, message))


def check_sample(sample: Sample) -> Checked:
    """Read one pair and note what is wrong with it."""
    checked = Checked(sample)
    _check_image(checked)
    _check_mask(checked)
    return checked


def _check_image(checked: Checked) -> None:
    path = checked.sample.image
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            upright.load()
    except Exception as error:  # Pillow raises a dozen types here
        checked.add(
            'unreadable',
            path,
            f'cannot be decoded ({type(error).__name__}: {error}): download '
            'or export it again',
        )
        return
    checked.size = (upright.height, upright.width)
    pixels = upright.convert('RGB')
    checked.digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    checked.bits = imagehash.phash(pixels, hash_size=HASH_SIDE).hash.ravel()
    orientation = jpeg_orientation(path)
    if orientation != 1:
        checked.add(
            'orientation',
            path,
            f'carries the EXIF orientation {orientation}: look whether its '
            'mask lies alike',
        )


def _check_mask(checked: Checked) -> None:
    sample, path = checked.sample, checked.sample.mask
    try:
        with open(path, 'rb') as file:
            mask = decode_mask(file.read(), path)
    except (OSError, ValueError) as error:
        checked.add('unreadable', path, str(error))
        return
    checked.mode = mask.image.mode
    array = np.asarray(mask.image)
    if array.ndim == 2:
        checked.levels = tuple(np.unique(array).tolist()[:256])
    results = {'seg_map_path': path, 'img_path': sample.image}
    if checked.size not in (None, array.shape[:2]):
        checked.add(
            'size',
            path,
            f'is {array.shape[0]} x {array.shape[1]} (height x width) but '
            f'its image {checked.size[0]} x {checked.size[1]}: pair them '
            'correctly or resize one',
        )
    try:
        label = sample.loader.read(mask, results)
    except ValueError as error:
        kind = 'orientation' if 'EXIF orientation' in str(error) else 'values'
        checked.add(kind, path, str(error))
        return
    checked.share = crack_share(label)
    if checked.share > INVERTED_SHARE and not sample.loader.is_told_crack:
        checked.add(
            'inverted',
            path,
            f'{checked.share:.0%} of it is crack: if cracks are dark in the '
            'masks, load them with crack_values=[0]',
        )


def _shares_by_split(checked: Iterable[Checked]) -> dict[str, list[float]]:
    shares: dict[str, list[float]] = {}
    for item in checked:
        if item.share is not None:
            shares.setdefault(item.sample.split, []).append(item.share)
    return shares


def find_splits_without_crack(checked: Sequence[Checked]) -> list[Finding]:
    """Splits in which no mask has a crack: nothing can be learned there."""
    return [
        Finding(
            'no crack',
            split,
            '',
            f'none of its {len(values)} masks has a crack pixel: check how '
            'masks are read',
        )
        for split, values in _shares_by_split(checked).items()
        if not any(values)
    ]


def find_inverted_splits(checked: Sequence[Checked]) -> list[Finding]:
    """Splits whose masks are more than half crack, as a rule."""
    shares = _shares_by_split(
        x for x in checked if not x.sample.loader.is_told_crack
    )
    return [
        Finding(
            'inverted split',
            split,
            '',
            f'half of its {len(values)} masks are at least '
            f'{median(values):.0%} crack: if cracks are dark in them, load '
            'them with LoadCrackAnnotations(crack_values=[0]) and check a '
            'folder with --crack-values 0; if this is right, with the value '
            'that is crack ([255] or [1])',
        )
        for split, values in shares.items()
        if median(values) > INVERTED_SHARE
    ]


def find_duplicates(checked: Sequence[Checked]) -> list[Finding]:
    """Images that stand in two splits, exactly or nearly.

    Near-duplicates are told by a perceptual hash (pHash), which compression,
    scaling and small changes of brightness hardly change; turned, mirrored
    and overlapping images are not found.

    Args:
        checked: Of all splits.

    Returns:
        One finding per image of a later split, about the nearest one of each
        earlier split.
    """
    by_split: dict[str, list[Checked]] = {}
    for item in checked:
        if item.bits is not None:
            by_split.setdefault(item.sample.split, []).append(item)
    findings = []
    for first, second in combinations(by_split.values(), 2):
        packed = [
            np.packbits(np.stack([x.bits for x in part]), axis=1)
            for part in (first, second)
        ]
        for item, code in zip(second, packed[1], strict=True):
            # NumPy 1 has no popcount.
            distances = np.unpackbits(packed[0] ^ code, axis=1).sum(axis=1)
            nearest = int(distances.argmin())
            if distances[nearest] > MAX_DISTANCE:
                continue
            other = first[nearest]
            exact = other.digest == item.digest
            findings.append(
                Finding(
                    'duplicate' if exact else 'near-duplicate',
                    item.sample.split,
                    item.sample.image,
                    f'{"is" if exact else "looks like"} '
                    f'{printable(other.sample.image)} of the split '
                    f'{other.sample.split}: scores on it tell nothing new',
                )
            )
    return findings


def check_samples(
    samples: Sequence[Sample],
    mapper: Callable[
        [Callable[[Sample], Checked], Sequence[Sample]], Iterable[Checked]
    ] = map,
) -> tuple[list[Checked], list[Finding]]:
    """Check all pairs, one by one and against each other.

    Args:
        samples: Of all splits.
        mapper: ``map``, or one that works on several cores, in order.

    Returns:
        The pairs, and all findings.
    """
    checked = list(mapper(check_sample, samples))
    findings = [finding for item in checked for finding in item.findings]
    findings += find_splits_without_crack(checked)
    findings += find_inverted_splits(checked)
    findings += find_duplicates(checked)
    return checked, findings
