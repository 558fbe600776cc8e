# He and Wang (CrackMamba) on DeepCrack: Adam at a fixed 9e-4, 80 epochs of
# 1800 images (300 in six flips and rotations) in batches of 12.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=9e-4, betas=(0.9, 0.999), weight_decay=0),
)
param_scheduler = []
train_cfg = dict(
    type='ReproducibleIterBasedTrainLoop',
    max_iters=80 * 150,
    val_interval=10 * 150,
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook', by_epoch=False, interval=1500, max_keep_ckpts=2
    ),
    plain_checkpoint=dict(type='PlainCheckpointHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='CrackVisualizationHook'),
)
