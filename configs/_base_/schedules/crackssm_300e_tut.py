# CrackSSM, as published: AdamW, 8e-4, batch 16, up to 300 epochs with
# "progressive decay", read here as warm-up, then a cosine.
# The warm-up (5 epochs) and the weight decay are ours.
# 300 epochs of TUT's 987 training images in batches of 16.
max_iters = 300 * 62
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='NoDecayOptimWrapperConstructor',
    optimizer=dict(
        type='AdamW', lr=8e-4, betas=(0.9, 0.999), weight_decay=0.01
    ),
    paramwise_cfg=dict(no_decay=('A_log', 'D', 'dt_proj_bias')),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=310, by_epoch=False),
    dict(
        type='CosineAnnealingLR',
        eta_min=8e-6,
        begin=310,
        end=max_iters,
        by_epoch=False,
    ),
]
train_cfg = dict(
    type='ReproducibleIterBasedTrainLoop',
    max_iters=max_iters,
    val_interval=620,
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Two, so that one is whole if the run is killed while it saves.
    checkpoint=dict(
        type='CheckpointHook', by_epoch=False, interval=620, max_keep_ckpts=2
    ),
    plain_checkpoint=dict(type='PlainCheckpointHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='CrackVisualizationHook'),
)
