"""Checks shared by the tests of the models."""

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path
from types import ModuleType

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample


def c_compiler() -> str | None:
    """The compiler that builds Python extensions here, if there is one."""
    words = os.environ.get('CC') or sysconfig.get_config_var('CC') or 'cc'
    return shutil.which(words.split()[0])


def load_script(path: Path) -> ModuleType:
    """A script as a module, whatever its folder is called."""
    spec = importlib.util.spec_from_file_location(f'{path.stem}_script', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def max_rel_err(out: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, relative to the largest expected value."""
    assert out.shape == expected.shape
    return float((out - expected).abs().max() / expected.abs().max())


def untrained_parameters(module: torch.nn.Module) -> list[str]:
    """Names of the trainable parameters without a non-zero gradient."""
    return [
        name
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
        and (parameter.grad is None or not parameter.grad.abs().max() > 0)
    ]


def label_samples(label: torch.Tensor) -> list[SegDataSample]:
    """Data samples with the labels (B, H, W) as ``gt_sem_seg``."""
    samples = []
    for one in label:
        sample = SegDataSample()
        sample.gt_sem_seg = PixelData(data=one[None])
        sample.set_metainfo(
            dict(
                img_shape=tuple(one.shape),
                ori_shape=tuple(one.shape),
                pad_shape=tuple(one.shape),
            )
        )
        samples.append(sample)
    return samples
