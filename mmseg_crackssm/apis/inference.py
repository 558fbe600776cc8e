"""Prediction on single images from Python."""

from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmseg.models import BaseSegmentor
from mmseg.registry import MODELS

from .checkpoint import check_fits, load_weights
from .config import load_config
from .errors import UsageError

UNSOUND = (
    'the network gives nan for this image. If it does so for all, its '
    'training has diverged: take an earlier checkpoint, or train again with '
    'a lower learning rate'
)


def init_model(
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    *,
    cfg_options: dict | None = None,
    unsafe_load: bool = False,
) -> BaseSegmentor:
    """Build a model for prediction.

    Args:
        config: Path, name of a shipped config, or config.
        checkpoint: Local file; without it the weights are random.
        device: By default the GPU if there is one.
        cfg_options: Settings to override, by dotted keys.
        unsafe_load: Load a checkpoint that holds more than weights.

    Returns:
        The model in evaluation mode, its config in ``model.cfg``.

    Raises:
        FileNotFoundError: If config or checkpoint is missing.
        UsageError: If the checkpoint cannot be used or does not fit.
    """
    cfg = load_config(config, cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    model = MODELS.build(cfg.model)
    if checkpoint is not None:
        weights = load_weights(checkpoint, unsafe=unsafe_load)
        check_fits(model, weights, checkpoint)
        _load_checkpoint_to_model(model, weights)
    if device is None:
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model = revert_sync_batchnorm(model)
    model.cfg = cfg
    return model.to(device).eval()


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file, turned as its EXIF entry says.

    Args:
        path: Any format that OpenCV reads, under any file name.

    Returns:
        BGR uint8 (H, W, 3).

    Raises:
        ValueError: If it is not a readable image.
        OSError: If the file cannot be opened.
    """
    data = np.fromfile(path, dtype=np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error as error:
        raise ValueError(f'{path}: {error.err or error}') from error
    if image is None:
        raise ValueError(f'{path} is not an image that OpenCV reads')
    return image


def predict_image(
    model: BaseSegmentor,
    image: str | Path | np.ndarray,
    *,
    threshold: float | None = None,
    tile: int | None = None,
) -> dict[str, np.ndarray]:
    """Find the cracks in one image of any size.

    Args:
        model: From :func:`init_model`.
        image: File, or BGR uint8 (H, W, 3) as OpenCV gives it.
        threshold: Probability above which a pixel is crack; by default the
            head's, else 0.5.
        tile: Side of the square windows in which the image is predicted at
            its own size, overlapping by a quarter; for images that do not
            fit into memory. By default the whole image at once, resized as
            the config's test pipeline says.

    Returns:
        ``mask``, bool (H, W), and ``probability``, float32 (H, W).

    Raises:
        ValueError: If a probability is nan, see :func:`is_sound`.
    """
    if not isinstance(image, np.ndarray):
        image = read_image(image)
    (found,) = predict_images(model, [image], threshold=threshold, tile=tile)
    if not is_sound(found):
        raise ValueError(f'predict_image: {UNSOUND}')
    return found


def is_sound(found: dict[str, np.ndarray]) -> bool:
    """Whether a prediction says something of every pixel.

    The weights of a training that has diverged give nan, which is above no
    threshold: the mask would show a road without cracks.

    Args:
        found: One result of :func:`predict_images`.
    """
    return not np.isnan(found['probability']).any()


def check_settings(threshold: float | None, tile: int | None) -> None:
    """Refuse what :func:`predict_image` cannot work with.

    Raises:
        UsageError: If the threshold is no probability, or the tile is empty.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise UsageError(
            f'threshold must be a probability from 0 to 1, got {threshold}'
        )
    if tile is not None and tile < 1:
        raise UsageError(f'tile must be at least 1 pixel, got {tile}')


@torch.no_grad()
def predict_images(
    model: BaseSegmentor,
    images: Sequence[np.ndarray],
    *,
    threshold: float | None = None,
    tile: int | None = None,
) -> list[dict[str, np.ndarray]]:
    """Predict images of one size as a batch.

    Args:
        model: From :func:`init_model`.
        images: BGR uint8 (H, W, 3), all of the same size.
        threshold: See :func:`predict_image`.
        tile: See :func:`predict_image`.

    Returns:
        What :func:`predict_image` returns, for each image, :func:`is_sound`
        or not.

    Raises:
        ValueError: If the images differ in size or are not BGR uint8, or
            for a threshold or tile that makes no sense.
    """
    check_settings(threshold, tile)
    shapes = {(image.shape, str(image.dtype)) for image in images}
    if len(shapes) != 1 or not all(
        len(shape) == 3 and shape[2] == 3 and dtype == 'uint8'
        for shape, dtype in shapes
    ):
        raise ValueError(
            'images must be uint8 of one shape (H, W, 3), got '
            + ', '.join(f'{dtype} {shape}' for shape, dtype in shapes)
        )
    batch = preprocess_images(model, images, resize=tile is None)
    metas = [sample.metainfo for sample in batch['data_samples']]
    with _test_mode(model, tile):
        logits = model.inference(batch['inputs'], metas)
    probability = _crack_probability(logits, metas[0], model.align_corners)
    if threshold is None:
        threshold = getattr(model.decode_head, 'threshold', None) or 0.5
    return [
        dict(mask=item > threshold, probability=item) for item in probability
    ]


def preprocess_images(
    model: BaseSegmentor, images: Sequence[np.ndarray], *, resize: bool = True
) -> dict:
    """What the network gets to see of images of one size.

    Args:
        model: From :func:`init_model`.
        images: BGR uint8 (H, W, 3), all of the same size.
        resize: Whether to resize as the config's test pipeline says.

    Returns:
        ``inputs`` (B, 3, h, w), normalised, on the model's device, and
        ``data_samples``.

    Raises:
        UsageError: If the config has no test pipeline.
    """
    pipeline = _pipeline_for_arrays(model.cfg, resize=resize)
    data = [pipeline(dict(img=image)) for image in images]
    return model.data_preprocessor(
        dict(
            inputs=[item['inputs'] for item in data],
            data_samples=[item['data_samples'] for item in data],
        ),
        False,
    )


def image_window(meta: dict, shape: Sequence[int]) -> tuple[slice, slice]:
    """Where the image lies in the padded input of the network.

    Args:
        meta: Of a data sample of :func:`preprocess_images`.
        shape: Height and width of the input.

    Returns:
        Its rows and its columns.
    """
    padding = meta.get('img_padding_size', meta.get('padding_size', [0] * 4))
    left, right, top, bottom = padding
    height, width = shape
    return slice(top, height - bottom), slice(left, width - right)


def _pipeline_for_arrays(cfg: Config, resize: bool) -> Compose:
    """The config's test pipeline, for images that are already loaded."""
    transforms = _find_pipeline(cfg.get('test_dataloader'))
    transforms = transforms or cfg.get('test_pipeline')
    if not transforms:
        raise UsageError(
            f'{cfg.filename} has no test pipeline: give a leaf config, not '
            'one of _base_'
        )
    kept = [
        transform
        for transform in transforms
        if not transform['type'].startswith('Load')
        and (resize or 'Resize' not in transform['type'])
    ]
    return Compose([dict(type='LoadImageFromNDArray'), *kept])


def _find_pipeline(node: object) -> list[dict] | None:
    """The first ``pipeline`` in the config of a data loader."""
    if isinstance(node, dict):
        if node.get('pipeline'):
            return list(node['pipeline'])
        children: Iterable = node.values()
    elif isinstance(node, (list, tuple)):
        children = node
    else:
        return None
    for child in children:
        found = _find_pipeline(child)
        if found:
            return found
    return None


@contextmanager
def _test_mode(model: BaseSegmentor, tile: int | None):
    """Slide over windows of ``tile`` pixels, if given."""
    saved = model.test_cfg
    if tile is not None:
        stride = max(tile * 3 // 4, 1)
        model.test_cfg = ConfigDict(
            mode='slide', crop_size=(tile, tile), stride=(stride, stride)
        )
    try:
        yield
    finally:
        model.test_cfg = saved


def _crack_probability(
    logits: torch.Tensor, meta: dict, align_corners: bool
) -> np.ndarray:
    """Logits (B, C, h, w) -> crack probability (B, H, W) of the images."""
    channels = logits.shape[1]
    if channels > 2:
        raise UsageError(
            f'the model has {channels} classes, expected one crack channel '
            'or (background, crack)'
        )
    rows, columns = image_window(meta, logits.shape[2:])
    logits = logits[..., rows, columns]
    logits = F.interpolate(
        logits.float(),
        size=meta['ori_shape'][:2],
        mode='bilinear',
        align_corners=align_corners,
    )
    if channels == 1:
        return logits.sigmoid()[:, 0].cpu().numpy()
    return logits.softmax(dim=1)[:, 1].cpu().numpy()
