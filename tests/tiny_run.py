"""A run of a second: tiny images, a tiny network, every random ingredient.

Shared by the tests of engine, apis and tools; importable by the commands
under test through ``custom_imports``.
"""

import os
import signal
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.hooks import Hook
from mmseg.registry import HOOKS

SIZE = 24
# Settings that make little of a config on synthetic cracks.
SMALL_SYNTHETIC = [
    'train_dataloader.dataset.size=64',
    'train_dataloader.batch_size=1',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.dataset.size=64',
    'val_dataloader.dataset.num_samples=1',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
]
METAINFO = dict(
    classes=('background', 'crack'), palette=[[0, 0, 0], [255, 0, 0]]
)


@HOOKS.register_module(force=True)
class LossRecorder(Hook):
    """Keep the loss of every iteration in ``runner.losses``."""

    def before_train(self, runner):
        runner.losses = {}

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        runner.losses[runner.iter] = outputs['loss'].item()


@HOOKS.register_module(force=True)
class KillHook(Hook):
    """Kill the process at an iteration, as ``kill -9`` does."""

    priority = 'LOWEST'

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        if runner.iter + 1 == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)


def make_images(folder: Path, count: int = 6, seed: int = 0) -> None:
    """Write ``img/<i>.png`` and ``lab/<i>.png`` (0 and 1)."""
    rng = np.random.default_rng(seed)
    for name in ('img', 'lab'):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        label = np.zeros((SIZE + i, SIZE + 4), np.uint8)
        label[int(rng.integers(2, SIZE - 4)) :][:2] = 1
        image = rng.integers(90, 160, (*label.shape, 3), dtype=np.uint8)
        image[label == 1] //= 2
        cv2.imwrite(str(folder / 'img' / f'{i}.png'), image)
        cv2.imwrite(str(folder / 'lab' / f'{i}.png'), label)


def _loader(folder: Path, pipeline: list[dict], **settings) -> dict:
    return dict(
        dataset=dict(
            type='BaseSegDataset',
            data_root=str(folder),
            data_prefix=dict(img_path='img', seg_map_path='lab'),
            img_suffix='.png',
            metainfo=METAINFO,
            pipeline=pipeline,
        ),
        persistent_workers=bool(settings.get('num_workers')),
        **settings,
    )


def tiny_model(out_channels: int = 1) -> dict:
    """Config of a model of about a thousand parameters, with dropout."""
    one = out_channels == 1
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
            size=(16, 16),
            pad_val=0,
            seg_pad_val=255,
        ),
        backbone=dict(
            type='ResNet',
            depth=18,
            num_stages=1,
            base_channels=4,
            out_indices=(0,),
            strides=(1,),
            dilations=(1,),
            norm_cfg=dict(type='SyncBN', requires_grad=True),
        ),
        decode_head=dict(
            type='FCNHead',
            in_channels=4,
            in_index=0,
            channels=4,
            num_convs=1,
            dropout_ratio=0.3,
            num_classes=2,
            out_channels=out_channels,
            threshold=0.5 if one else None,
            norm_cfg=dict(type='SyncBN', requires_grad=True),
            loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=one),
        ),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )


def tiny_config(
    folder: Path,
    *,
    max_iters: int = 8,
    num_workers: int = 0,
    custom_hooks: list[dict] | None = None,
) -> Config:
    """Config of a run on the images of :func:`make_images`.

    Args:
        folder: Holds ``img/`` and ``lab/``; the work dir is put there.
        max_iters: Iterations; a checkpoint every 3, validation every 2.
        num_workers: Loader workers of training.
        custom_hooks: As in a config.
    """
    train = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(type='RandomCrop', crop_size=(16, 16)),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'),
        dict(type='PackSegInputs'),
    ]
    test = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(type='PackSegInputs'),
    ]
    held_out = _loader(
        folder,
        test,
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    return Config(
        dict(
            default_scope='mmseg',
            custom_imports=dict(
                imports=['mmseg_crackssm', 'tiny_run'],
                allow_failed_imports=False,
            ),
            work_dir=str(folder / 'work'),
            randomness=dict(seed=3),
            env_cfg=dict(mp_cfg=dict(mp_start_method='fork')),
            model=tiny_model(),
            train_dataloader=_loader(
                folder,
                train,
                batch_size=2,
                num_workers=num_workers,
                sampler=dict(type='InfiniteSampler', shuffle=True),
            ),
            val_dataloader=held_out,
            test_dataloader=held_out,
            val_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
            test_evaluator=[
                dict(type='CrackMetric'),
                dict(type='IoUMetric', iou_metrics=['mIoU']),
            ],
            train_cfg=dict(
                type='ReproducibleIterBasedTrainLoop',
                max_iters=max_iters,
                val_interval=2,
            ),
            val_cfg=dict(type='ValLoop'),
            test_cfg=dict(type='TestLoop'),
            optim_wrapper=dict(
                type='OptimWrapper',
                optimizer=dict(type='AdamW', lr=0.01),
                constructor='NoDecayOptimWrapperConstructor',
            ),
            param_scheduler=[
                dict(
                    type='CosineAnnealingLR',
                    begin=0,
                    end=max_iters,
                    by_epoch=False,
                )
            ],
            default_hooks=dict(
                logger=dict(
                    type='LoggerHook', interval=1, log_metric_by_epoch=False
                ),
                checkpoint=dict(
                    type='CheckpointHook', by_epoch=False, interval=3
                ),
                plain_checkpoint=dict(type='PlainCheckpointHook'),
                visualization=dict(type='CrackVisualizationHook'),
            ),
            custom_hooks=custom_hooks or [],
            log_processor=dict(by_epoch=False, window_size=1),
            vis_backends=[dict(type='LocalVisBackend')],
            visualizer=dict(
                type='SegLocalVisualizer',
                vis_backends=[dict(type='LocalVisBackend')],
                name='visualizer',
            ),
        )
    )
