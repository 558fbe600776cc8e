"""Figures that papers print, with their source.

Fractions, where papers print percent. They stand beside what is measured
here and are never measured here.
"""

from typing import NamedTuple


class PaperResult(NamedTuple):
    """One row of a paper's table.

    Attributes:
        dataset: As ``--paper`` names it.
        method: As the paper names it.
        scores: By the names that ``CrackMetric`` uses.
        params: Number of parameters; None if not printed.
        macs: Multiply-accumulates, which papers call FLOPs or MACs.
        source: Paper and table.
    """

    dataset: str
    method: str
    scores: dict[str, float]
    params: float | None
    macs: float | None
    source: str


_CRACKSSM = 'CrackSSM, CVPR 2026, main results'
_CRACKMAMBA = 'He and Wang, CrackMamba, Table'


def _crackssm(
    method: str, params: float, macs: float, **scores: tuple[float, float]
) -> list[PaperResult]:
    return [
        PaperResult(
            dataset,
            method,
            {'F1': f1, 'mIoU': miou},
            params * 1e6,
            macs * 1e9,
            _CRACKSSM,
        )
        for dataset, (f1, miou) in scores.items()
    ]


def _crackmamba(
    dataset: str,
    tables: str,
    rows: dict[str, tuple[float, float, float, float]],
) -> list[PaperResult]:
    return [
        PaperResult(
            dataset,
            method,
            {'miIoU': iou / 100, 'miDice': dice / 100},
            params * 1e6,
            macs * 1e9,
            f'{_CRACKMAMBA} {tables}',
        )
        for method, (iou, dice, params, macs) in rows.items()
    ]


PAPER_RESULTS: tuple[PaperResult, ...] = (
    *_crackssm(
        'CrackSSM',
        2.95,
        4.69,
        Crack500=(0.764, 0.780),
        TUT=(0.845, 0.851),
        DeepCrack=(0.918, 0.909),
    ),
    *_crackssm(
        'SCSegamba',
        2.80,
        18.16,
        Crack500=(0.746, 0.771),
        TUT=(0.824, 0.838),
        DeepCrack=(0.903, 0.896),
    ),
    *_crackssm(
        'DefMamba',
        177.44,
        50.91,
        Crack500=(0.752, 0.772),
        TUT=(0.823, 0.836),
        DeepCrack=(0.907, 0.900),
    ),
    PaperResult(
        'TUT',
        'SCSegamba',
        {'F1': 0.8390, 'mIoU': 0.8479},
        2.8e6,
        None,
        'Liu et al., SCSegamba, CVPR 2025, abstract',
    ),
    PaperResult(
        'TUT',
        'CrackSCF',
        {'F1': 0.8382, 'mIoU': 0.8473},
        4.79e6,
        None,
        'Liu et al., CrackSCF, arXiv 2408.12815, abstract',
    ),
    *_crackmamba(
        'DeepCrack',
        '2',
        {
            'CrackSeU-B': (71.71, 81.40, 3.19, 8.94),
            'CrackSeU-B + Vim block': (70.79, 80.58, 2.36, 7.60),
            'CrackSeU-B + vanilla VSS block': (71.90, 81.49, 1.83, 7.94),
            'CrackSeU-B + VSS block': (72.46, 82.26, 2.35, 8.26),
            'CrackSeU-B + CrackMamba': (73.12, 82.50, 1.83, 7.94),
        },
    ),
    *_crackmamba(
        'DeepCrack',
        '3',
        {
            'U-Net': (68.17, 75.07, 7.77, 43.84),
            'U-Net (large)': (68.40, 75.64, 31.04, 174.53),
            'U-Net++': (67.92, 74.91, 9.16, 110.47),
            'Attention U-Net': (69.19, 75.11, 34.88, 212.40),
            'CE-Net': (68.80, 76.10, 29.00, 28.37),
            'DeepLabv3+ (MobileNetv2)': (69.18, 74.23, 5.81, 23.25),
            'DeepLabv3+ (ResNet-101)': (67.52, 73.82, 59.34, 70.80),
        },
    ),
    *_crackmamba(
        'SteelCrack',
        '4',
        {
            'CrackSeU-B': (70.42, 80.50, 3.19, 11.22),
            'CrackSeU-B + Vim block': (69.41, 79.60, 2.36, 9.54),
            'CrackSeU-B + vanilla VSS block': (70.46, 80.51, 1.83, 9.96),
            'CrackSeU-B + VSS block': (69.96, 80.13, 2.35, 10.37),
            'CrackSeU-B + CrackMamba': (76.26, 84.88, 1.83, 9.97),
        },
    ),
    *_crackmamba(
        'SteelCrack',
        '5',
        {
            'U-Net': (68.49, 75.13, 7.77, 55.01),
            'U-Net (large)': (69.81, 76.85, 31.04, 219.01),
            'U-Net++': (72.23, 78.37, 9.16, 138.63),
            'Attention U-Net': (71.25, 77.54, 34.88, 266.54),
            'CE-Net': (76.00, 81.54, 29.00, 35.60),
            'DeepLabv3+ (MobileNetv2)': (68.22, 71.07, 5.81, 29.13),
            'DeepLabv3+ (Xception)': (67.40, 71.48, 54.70, 83.14),
            'DeepLabv3+ (ResNet-101)': (69.04, 69.45, 59.34, 88.84),
            'SCRN': (73.23, 78.91, 25.23, 31.92),
            'TransUNet': (64.34, 72.55, 67.87, 129.96),
            'CrackSeU-L': (71.66, 81.24, 4.62, 28.22),
            'DconnNet': (74.73, 83.40, 28.38, 24.79),
            'BGCrack': (77.16, 85.33, 2.32, 15.76),
        },
    ),
)
