"""CrackSSM on drawn cracks: train, score, and show some predictions.

Needs no data and no GPU. ``make demo`` sets everything up and runs this.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from mmseg.models import BaseSegmentor

from mmseg_crackssm.apis import (
    init_model,
    load_config,
    predict_images,
    test_model,
    train_model,
)
from mmseg_crackssm.apis.errors import check_output_folder, run_cli
from mmseg_crackssm.datasets.synthetic import draw_crack
from mmseg_crackssm.visualization import (
    draw_comparison,
    draw_overlay,
    write_image,
)

CONFIG = 'crackssm/crackssm_synthetic-256.py'


#: The F1 that a run of the config's length reaches.
EXPECTED_F1 = 0.8


def contact_sheet(
    model: BaseSegmentor, held_out: dict, num_images: int
) -> np.ndarray:
    """Held-out images beside the label and the prediction.

    Args:
        model: From ``init_model``.
        held_out: Config of the data set that was tested on.
        num_images: Number of images, two to a row.

    Returns:
        BGR uint8; per image: itself, the label in red, and the prediction
        with hits green, false alarms orange and missed pixels blue.
    """
    pairs = [
        draw_crack(
            index,
            seed=held_out['seed'],
            size=held_out['size'],
            clarity=held_out['clarity'],
        )
        for index in range(num_images)
    ]
    results = predict_images(model, [image for image, _ in pairs])
    panels = [
        np.hstack(
            [
                image,
                draw_overlay(image, label),
                draw_comparison(image, result['mask'], label),
            ]
        )
        for (image, label), result in zip(pairs, results, strict=True)
    ]
    panels = [
        cv2.copyMakeBorder(
            panel, 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255)
        )
        for panel in panels
    ]
    half = num_images // 2
    return np.hstack([np.vstack(panels[:half]), np.vstack(panels[half:])])


def run_demo(out: Path, seconds: float | None) -> int:
    """Train, test, draw; prints the scores and the path of the picture.

    Returns:
        The exit code: 1 if a run of full length stays below the F1 expected
        of it.
    """
    check_output_folder(out, '--out')
    options = {}
    if seconds is not None:
        options['default_hooks.time_budget.seconds'] = seconds
    train_model(CONFIG, work_dir=str(out), cfg_options=options)
    checkpoint = Path((out / 'last_checkpoint').read_text().strip())
    scores = test_model(CONFIG, checkpoint, work_dir=str(out / 'test'))
    picture = out / 'predictions.png'
    sheet = contact_sheet(
        init_model(CONFIG, checkpoint),
        load_config(CONFIG).test_dataloader.dataset,
        num_images=8,
    )
    write_image(picture, sheet)
    print('\nHeld-out synthetic images:')
    for name in ('F1', 'P', 'R', 'mIoU', 'ODS', 'OIS'):
        print(f'  {name:<5}{scores[f"crack/{name}"]:.4f}')
    print(f'Checkpoint:  {checkpoint.resolve()}')
    print(f'Predictions: {picture.resolve()}')
    if seconds is None and not scores['crack/F1'] >= EXPECTED_F1:
        print(
            f'F1 is below the expected {EXPECTED_F1}: something is wrong, or '
            'this machine is too slow for the time given (more: --seconds)'
        )
        return 1
    return 0


def main() -> int:
    """The command line of the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/demo'),
        help='folder of the checkpoint and the picture (default: %(default)s)',
    )
    parser.add_argument(
        '--seconds',
        type=float,
        help="training time; by default the config's",
    )
    args = parser.parse_args()
    return run_cli(lambda: run_demo(args.out, args.seconds))


if __name__ == '__main__':
    sys.exit(main())
