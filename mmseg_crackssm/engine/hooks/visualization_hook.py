from collections.abc import Sequence
from pathlib import Path, PurePath

import cv2
import mmcv
import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample

from mmseg_crackssm.visualization import (
    draw_comparison,
    draw_overlay,
    write_image,
)


def probability_to_uint16(probability: np.ndarray) -> np.ndarray:
    """Probabilities 0..1 as 16-bit grey levels 0..65535, rounded."""
    return np.rint(probability * 65535).astype(np.uint16)


@HOOKS.register_module()
class CrackVisualizationHook(Hook):
    """Write overlays, masks and probability maps of the tested images.

    Differs from mmseg's ``SegVisualizationHook``: every test image is drawn
    on both stacks (official mmseg draws one batch in ``interval``), cracks
    a pixel wide stay visible, the drawing tells hits from errors, names and
    sub-folders are those of the images, and images without a file
    (synthetic ones) are drawn too.

    Args:
        draw: Whether to do anything. mmseg's own ``tools/test.py`` sets it.
        show: Open a window for each image.
        wait_time: Seconds each window stays; 0 waits for a key.
        overlay_dir: Where overlays go, ``<name>.png``: hits green, false
            alarms orange-red, missed pixels blue, or all cracks red where
            there is no ground truth. If not given they go to the
            visualizer's backends.
        out_dir: Where predictions go: ``mask/<name>.png`` (0 and 255) and
            ``probability/<name>.png`` (16 bit, 65535 is 1).
    """

    def __init__(
        self,
        draw: bool = False,
        show: bool = False,
        wait_time: float = 2.0,
        overlay_dir: str | None = None,
        out_dir: str | None = None,
    ) -> None:
        self.draw = draw
        self.show = show
        self.wait_time = wait_time
        self.overlay_dir = Path(overlay_dir) if overlay_dir else None
        self.out_dir = Path(out_dir) if out_dir else None
        self._count = 0

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[SegDataSample] | None = None,
    ) -> None:
        """Draw and write the samples of one batch."""
        if not (self.draw or self.out_dir):
            return
        dataset = runner.test_loop.dataloader.dataset
        root = getattr(dataset, 'data_prefix', {}).get('img_path')
        inputs = (data_batch or {}).get('inputs', [])
        if len(inputs) and isinstance(inputs[0], (list, tuple)):
            inputs = inputs[0]  # The first test-time augmentation.
        for i, sample in enumerate(outputs):
            name = self._name_of(sample, root)
            mask = sample.pred_sem_seg.data[0].cpu().numpy() > 0
            if self.out_dir:
                self._write_prediction(name, sample, mask)
            if not self.draw:
                continue
            image = _image_of(sample, inputs[i], dataset)
            painted = _paint(image, mask, sample)
            if self.overlay_dir:
                write_image(self.overlay_dir / f'{name}.png', painted)
            rgb = np.ascontiguousarray(painted[..., ::-1])
            if self.show:
                runner.visualizer.show(
                    rgb, win_name=name, wait_time=self.wait_time
                )
            elif not self.overlay_dir:
                runner.visualizer.add_image(name.replace('/', '_'), rgb)

    def _name_of(self, sample: SegDataSample, root: str | None) -> str:
        """Name of the outputs, without suffix."""
        rank, world_size = get_dist_info()
        number = self._count * world_size + rank
        self._count += 1
        path = sample.metainfo.get('img_path')
        if not path:
            return f'{number:06d}'
        path = PurePath(path)
        if root and path.is_relative_to(root):
            return path.relative_to(root).with_suffix('').as_posix()
        return path.stem

    def _write_prediction(
        self, name: str, sample: SegDataSample, mask: np.ndarray
    ) -> None:
        # mmseg's postprocess_result leaves the sigmoid of a one-channel
        # head here, but raw logits of a head with more channels.
        scores = sample.seg_logits.data.float()
        scores = scores[0] if len(scores) == 1 else scores.softmax(0)[1]
        write_image(
            self.out_dir / 'mask' / f'{name}.png', mask.astype(np.uint8) * 255
        )
        write_image(
            self.out_dir / 'probability' / f'{name}.png',
            probability_to_uint16(scores.cpu().numpy()),
        )


def _image_of(
    sample: SegDataSample, inputs: torch.Tensor, dataset: object
) -> np.ndarray:
    """The image (H, W, 3), BGR, in the size of the prediction."""
    height, width = sample.pred_sem_seg.shape
    path = sample.metainfo.get('img_path')
    if path and Path(path).is_file():
        image = _read_as_pipeline(path, dataset)
        if image.shape[:2] == (height, width):
            return image
    # Not from a file: the network's input before normalisation.
    image = _as_bgr(inputs.permute(1, 2, 0).cpu().numpy())
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height))
    return image


def _read_as_pipeline(path: str, dataset: object) -> np.ndarray:
    """Read an image as the data set does: turned by its EXIF or not."""
    dataset = getattr(dataset, 'datasets', [dataset])[0]
    pipeline = getattr(dataset, 'pipeline', None)
    for transform in getattr(pipeline, 'transforms', ()):
        if isinstance(transform, LoadImageFromFile):
            loaded = transform.transform(dict(img_path=path))
            if loaded is not None:
                return _as_bgr(loaded['img'])
    return mmcv.imread(path)


def _as_bgr(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) of what a pipeline loads, grey or float too."""
    image = image.clip(0, 255).astype(np.uint8)
    if image.ndim == 2 or image.shape[2] == 1:
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(image)


def _paint(
    image: np.ndarray, mask: np.ndarray, sample: SegDataSample
) -> np.ndarray:
    """The comparison with the ground truth if there is one."""
    if 'gt_sem_seg' in sample:
        label = sample.gt_sem_seg.data[0].cpu().numpy()
        if label.shape == mask.shape:
            return draw_comparison(image, mask, label)
    return draw_overlay(image, mask)
