# 300 epochs of 260 images in batches of 16; else as on TUT.
_base_ = './crackssm_300e_tut.py'
max_iters = 300 * 17
warmup = 5 * 17
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.01, begin=0, end=warmup, by_epoch=False
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=8e-6,
        begin=warmup,
        end=max_iters,
        by_epoch=False,
    ),
]
train_cfg = dict(max_iters=max_iters, val_interval=10 * 17)
default_hooks = dict(checkpoint=dict(interval=10 * 17))
