"""What a check of a data set found, for people and for programs."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from prettytable import PrettyTable

from ..datasets.checking import Checked, Finding
from ..datasets.crack_dataset import printable
from ..datasets.mask_reading import decode_mask
from ..visualization import draw_overlay
from .inference import read_image

#: Panels of the contact sheet, and their height in pixels.
MAX_PANELS = 24
PANEL_HEIGHT = 160
#: Lines of findings that are printed; the JSON has all.
MAX_LINES = 30


def contact_sheet(
    checked: Sequence[Checked], findings: Sequence[Finding]
) -> np.ndarray:
    """The worst cases: what was found wrong, then the extremes.

    Args:
        checked: All pairs.
        findings: What is wrong with them.

    Returns:
        BGR uint8; each image with its mask in red, and why it is shown.
    """
    reasons: dict[str, str] = {}
    for finding in findings:
        if finding.path:
            reasons.setdefault(finding.path, finding.kind)
    with_share = [x for x in checked if x.share is not None]
    extremes = sorted(with_share, key=lambda x: x.share)
    chosen = [
        (item, reasons.get(item.sample.image) or reasons[item.sample.mask])
        for item in checked
        if item.sample.image in reasons or item.sample.mask in reasons
    ][:MAX_PANELS]
    for item in (*extremes[:4], *extremes[:-9:-1]):
        if len(chosen) < MAX_PANELS and all(item is not x for x, _ in chosen):
            chosen.append((item, f'{item.share:.2%} crack'))
    panels = [_panel(item, reason) for item, reason in chosen]
    width = max(panel.shape[1] for panel in panels)
    panels = [
        cv2.copyMakeBorder(
            panel, 3, 3, 3, width - panel.shape[1] + 3, cv2.BORDER_CONSTANT,
            value=(255, 255, 255),
        )
        for panel in panels
    ]  # fmt: skip
    while len(panels) % 4:
        panels.append(np.full_like(panels[0], 255))
    rows = [np.hstack(panels[i : i + 4]) for i in range(0, len(panels), 4)]
    return np.vstack(rows)


def _panel(item: Checked, reason: str) -> np.ndarray:
    sample = item.sample
    try:
        image = read_image(sample.image)
    except ValueError:
        image = np.full((PANEL_HEIGHT, PANEL_HEIGHT, 3), 200, dtype=np.uint8)
    if item.share is not None:
        results = {'seg_map_path': sample.mask, 'img_path': sample.image}
        mask = decode_mask(Path(sample.mask).read_bytes(), sample.mask)
        label = sample.loader.read(mask, results)
        if label.shape == image.shape[:2]:
            image = draw_overlay(image, label == 1)
    scale = PANEL_HEIGHT / image.shape[0]
    width = min(max(round(image.shape[1] * scale), 60), 4 * PANEL_HEIGHT)
    image = cv2.resize(
        image, (width, PANEL_HEIGHT), interpolation=cv2.INTER_AREA
    )
    caption = np.full((34, width, 3), 255, dtype=np.uint8)
    name = Path(sample.image).name.encode('ascii', 'replace').decode()
    for line, text in enumerate((f'{sample.split} {name}', reason)):
        cv2.putText(
            caption, text, (2, 13 + 16 * line), cv2.FONT_HERSHEY_SIMPLEX,
            0.4, (0, 0, 0), lineType=cv2.LINE_AA,
        )  # fmt: skip
    return np.vstack([image, caption])


def summarise(checked: Sequence[Checked], findings: Sequence[Finding]) -> dict:
    """Counts per split, and all findings, as plain data."""
    splits = {}
    for split in dict.fromkeys(item.sample.split for item in checked):
        part = [item for item in checked if item.sample.split == split]
        shares = [item.share for item in part if item.share is not None]
        levels = Counter(_describe_levels(item) for item in part)
        sizes = Counter(
            f'{x.size[1]}x{x.size[0]}' for x in part if x.size is not None
        )
        splits[split] = {
            'images': len(part),
            'sizes': dict(sizes.most_common()),
            'mask_values': dict(levels.most_common()),
            'empty_masks': sum(share == 0 for share in shares),
            'crack_share': float(np.mean(shares)) if shares else None,
            'crack_share_min': min(shares, default=None),
            'crack_share_max': max(shares, default=None),
        }
    return {
        'sound': not any(finding.is_error for finding in findings),
        'splits': splits,
        'findings': [
            {
                'kind': x.kind,
                'error': x.is_error,
                'split': x.split,
                'path': printable(x.path),
                'message': printable(x.message),
            }
            for x in findings
        ],
    }


def _describe_levels(item: Checked) -> str:
    """Values of a mask, in few words."""
    if not item.levels:
        return item.mode or 'unreadable'
    if len(item.levels) > 4:
        return f'{len(item.levels)} grey levels'
    return '/'.join(map(str, item.levels))


def format_report(report: dict) -> str:
    """The result as text for people."""
    table = PrettyTable(
        ['split', 'images', 'sizes (w x h)', 'mask values', 'empty masks']
        + ['crack pixels', 'least', 'most']
    )
    table.align = 'l'
    for split, part in report['splits'].items():
        shares = (
            part[f'crack_share{suffix}'] for suffix in ('', '_min', '_max')
        )
        table.add_row(
            [
                split,
                part['images'],
                _few(part['sizes']),
                _few(part['mask_values']),
                part['empty_masks'],
                *('-' if x is None else f'{x:.2%}' for x in shares),
            ]
        )
    lines = [table.get_string()]
    findings = sorted(report['findings'], key=lambda x: not x['error'])
    for finding in findings[:MAX_LINES]:
        grade = 'ERROR' if finding['error'] else 'warning'
        place = f'{finding["split"]} {finding["path"]}'.strip()
        lines.append(
            f'{grade} ({finding["kind"]}) {place}: {finding["message"]}'
        )
    if len(findings) > MAX_LINES:
        lines.append(f'... and {len(findings) - MAX_LINES} more (--json)')
    lines.append(
        'Nothing stands against training on it.'
        if report['sound']
        else 'Training on it, or its scores, would not be sound.'
    )
    return '\n'.join(lines)


def _few(counts: dict[str, int]) -> str:
    """The most frequent ones."""
    items = list(counts.items())
    words = [f'{name} ({count})' for name, count in items[:3]]
    return ', '.join(words) + (', ...' if len(items) > 3 else '')
