from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from mmseg_crackssm.engine import CrackVisualizationHook
from mmseg_crackssm.visualization import (
    draw_comparison,
    draw_overlay,
    write_image,
)


def _sample(path: Path | None, scores: torch.Tensor) -> SegDataSample:
    """Scores (C, H, W) as mmseg's ``postprocess_result`` leaves them."""
    sample = SegDataSample(
        metainfo=dict(img_path=str(path)) if path else dict()
    )
    if len(scores) == 1:
        prediction = (scores > 0.5).to(scores)
    else:
        prediction = scores.argmax(0, keepdim=True)
    sample.seg_logits = PixelData(data=scores)
    sample.pred_sem_seg = PixelData(data=prediction)
    return sample


def _runner(
    root: Path | None,
    images: list | None = None,
    transforms: tuple = (),
):
    prefix = dict(img_path=str(root)) if root else {}
    dataset = SimpleNamespace(
        data_prefix=prefix, pipeline=SimpleNamespace(transforms=transforms)
    )
    return SimpleNamespace(
        test_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset)),
        visualizer=SimpleNamespace(
            add_image=lambda name, image: images.append((name, image))
        ),
    )


@pytest.fixture
def scores() -> torch.Tensor:
    values = torch.zeros(1, 6, 5)
    values[0, 2] = 0.75
    return values


def test_files_keep_names_and_folders(tmp_path, scores):
    root = tmp_path / 'data'
    image = np.full((6, 5, 3), 100, np.uint8)
    samples = []
    for name in ('a/x.png', 'b/x.png'):
        write_image(root / name, image)
        samples.append(_sample(root / name, scores))
    samples[0].gt_sem_seg = PixelData(
        data=torch.ones(1, 6, 5, dtype=torch.uint8)
    )
    hook = CrackVisualizationHook(
        draw=True, overlay_dir=tmp_path / 'over', out_dir=tmp_path / 'out'
    )
    inputs = [torch.zeros(3, 6, 5)] * 2
    hook.after_test_iter(_runner(root), 0, dict(inputs=inputs), samples)
    mask = cv2.imread(str(tmp_path / 'out/mask/b/x.png'), -1)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask[:, 0], [0, 0, 255, 0, 0, 0])
    probability = cv2.imread(str(tmp_path / 'out/probability/a/x.png'), -1)
    assert probability.dtype == np.uint16
    assert probability[2, 0] == round(0.75 * 65535) and probability[0, 0] == 0
    compared = cv2.imread(str(tmp_path / 'over/a/x.png'))
    assert np.array_equal(
        compared, draw_comparison(image, mask, np.ones((6, 5)))
    )
    overlay = cv2.imread(str(tmp_path / 'over/b/x.png'))
    assert np.array_equal(overlay, draw_overlay(image, mask))


@pytest.mark.parametrize(
    ('orientation', 'color_type'),
    [
        (1, 'color'),
        (1, 'grayscale'),
        (3, 'color'),
        (3, 'color_ignore_orientation'),
        (6, 'color_ignore_orientation'),
    ],
)
def test_image_is_the_one_that_the_pipeline_reads(
    orientation, color_type, tmp_path
):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.zeros((24, 16, 3), np.uint8)
    pixels[:8] = 200
    path = tmp_path / 'x.jpg'
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    loader = LoadImageFromFile(color_type=color_type, to_float32=True)
    image = loader.transform(dict(img_path=str(path)))['img']
    top_is_bright = orientation == 1 or color_type != 'color'
    scores = torch.zeros(1, *image.shape[:2])
    hook = CrackVisualizationHook(draw=True, overlay_dir=tmp_path / 'over')
    hook.after_test_iter(
        _runner(tmp_path, transforms=(loader,)),
        0,
        dict(inputs=[torch.zeros(3, *image.shape[:2])]),
        [_sample(path, scores)],
    )
    drawn = cv2.imread(str(tmp_path / 'over/x.png'))
    assert drawn.shape == (24, 16, 3)
    assert (drawn[2].mean() > 150) == top_is_bright
    # Without knowledge of the pipeline it is drawn all the same.
    hook.after_test_iter(
        _runner(tmp_path),
        0,
        dict(inputs=[torch.zeros(3, *image.shape[:2])]),
        [_sample(path, scores)],
    )


def test_two_channels_give_the_softmax(tmp_path):
    scores = torch.zeros(2, 4, 4)
    scores[0] = -1.0
    scores[1, 1] = 2.0
    hook = CrackVisualizationHook(out_dir=tmp_path)
    hook.after_test_iter(_runner(None), 0, {}, [_sample(None, scores)])
    probability = cv2.imread(str(tmp_path / 'probability/000000.png'), -1)
    expected = torch.tensor(3.0).sigmoid().item() * 65535
    assert probability[1, 0] == pytest.approx(expected, abs=0.51)
    assert probability[0, 0] == pytest.approx(
        torch.tensor(1.0).sigmoid().item() * 65535, abs=0.51
    )


def test_image_without_file_goes_to_the_visualizer(scores):
    images = []
    hook = CrackVisualizationHook(draw=True)
    inputs = torch.full((3, 12, 10), 200, dtype=torch.uint8)
    for _ in range(2):
        hook.after_test_iter(
            _runner(None, images),
            0,
            dict(inputs=[inputs]),
            [_sample(None, scores)],
        )
    assert [name for name, _ in images] == ['000000', '000001']
    image = images[0][1]
    assert image.shape == (6, 5, 3)
    assert np.array_equal(image[0, 0], [200] * 3)
    assert image[2, 0, 0] > 200 > image[2, 0, 2]  # RGB, red


def test_off_by_default(scores):
    hook = CrackVisualizationHook()
    hook.after_test_iter(None, 0, None, [_sample(None, scores)])
