"""Networks of configs, and the calls of them that are measured."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from mmengine.model import BaseModel
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from ..apis.config import load_config
from ..apis.errors import UsageError
from ..apis.inference import init_model
from ..engine.optimizers import build_optimizer
from .bare_backbones import BACKBONES, build_backbone
from .flops import count_channels, count_flops, infer

INFERENCE = 'inference'
TRAINING = 'training step'


@dataclass
class Candidate:
    """A network to measure.

    Attributes:
        name: What the user called it.
        model: On its device.
        sizes: By height and width, ``params``, ``macs`` and ``scan_flops`` of
            one image.
        optimizer: Of the training steps; from the first of them on.
    """

    name: str
    model: BaseModel
    sizes: dict[tuple[int, int], dict[str, int]]
    optimizer: torch.optim.Optimizer | None = None


def build_candidates(
    configs: Sequence[str],
    shapes: Sequence[tuple[int, int]],
    device: torch.device,
) -> list[Candidate]:
    """Build the networks and count them.

    Args:
        configs: Paths, or names of shipped configs or of ``BACKBONES``. One
            given twice is measured twice, which shows how exact the
            measurement is.
        shapes: Heights and widths to count for.
        device: Where the models go.

    Raises:
        FileNotFoundError: There is no such config.
        UsageError: A config has no model.
    """
    builders = [_find_builder(config) for config in configs]
    seen: Counter[str] = Counter()
    candidates = []
    for config, build in zip(configs, builders, strict=True):
        seen[config] += 1
        name = f'{config} #{seen[config]}' if seen[config] > 1 else config
        # Counting is done on the CPU.
        model = build()
        channels = count_channels(model)
        sizes = {}
        for shape in shapes:
            counts = count_flops(model, shape=shape, in_channels=channels)
            sizes[shape] = {
                key: counts[key] for key in ('params', 'macs', 'scan_flops')
            }
        candidates.append(
            Candidate(name=name, model=model.to(device), sizes=sizes)
        )
    return candidates


def _find_builder(config: str) -> Callable[[], BaseModel]:
    """What builds the network, on the CPU; unknown names are told at once."""
    if config in BACKBONES:
        return partial(build_backbone, config)
    cfg = load_config(config)
    if 'model' not in cfg:
        raise UsageError(
            f'config {str(config)!r} has no model: give a leaf config, '
            'not one of _base_'
        )
    return partial(init_model, cfg, device='cpu')


def make_inference(
    candidate: Candidate,
    *,
    shape: tuple[int, int],
    batch: int,
    device: torch.device,
    amp: bool,
) -> Callable[[], object]:
    """A call from random images to logits, or to the maps of a backbone.

    Args:
        candidate: The network, in evaluation mode.
        shape: Height and width.
        batch: Images.
        device: Where.
        amp: Whether under autocast to bfloat16.
    """
    images = _draw_images(candidate, shape, batch=batch, device=device)

    def run_inference() -> torch.Tensor:
        with torch.no_grad(), _autocast(device, enabled=amp):
            return infer(candidate.model, images)

    return run_inference


def make_training(
    candidate: Candidate,
    *,
    shape: tuple[int, int],
    batch: int,
    device: torch.device,
    amp: bool,
) -> Callable[[], object]:
    """A training step on random images and labels.

    Gradients live from backward to the end of the step, as they do in
    mmengine's loop.

    Args:
        candidate: The network, in training mode; its optimiser is made here.
        shape: Height and width.
        batch: Images.
        device: Where.
        amp: Whether the forward is under autocast to bfloat16.
    """
    model = candidate.model
    images = _draw_images(candidate, shape, batch=batch, device=device)
    labels = torch.randint(model.num_classes, (batch, *shape), device=device)
    samples = [_label_sample(label) for label in labels]
    if candidate.optimizer is None:
        candidate.optimizer = build_optimizer(
            dict(type='AdamW', params=model.parameters(), lr=1e-5)
        )
    optimizer = candidate.optimizer

    def run_training_step() -> None:
        try:
            with _autocast(device, enabled=amp):
                losses = model.loss(images, samples)
        except ValueError as error:
            # What batch norm says of a 1 x 1 map of a single image.
            if 'more than 1 value per channel' not in str(error):
                raise
            raise UsageError(
                f'{candidate.name} does not train on one image at a time: '
                'use --batch 2 or more'
            ) from error
        loss, _ = model.parse_losses(losses)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run_training_step


def _draw_images(
    candidate: Candidate,
    shape: tuple[int, int],
    batch: int,
    device: torch.device,
) -> torch.Tensor:
    channels = count_channels(candidate.model)
    return torch.randn(batch, channels, *shape, device=device)


def _label_sample(label: torch.Tensor) -> SegDataSample:
    size = tuple(label.shape)
    sample = SegDataSample(
        metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size)
    )
    sample.gt_sem_seg = PixelData(data=label[None])
    return sample


def _autocast(device: torch.device, enabled: bool) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
