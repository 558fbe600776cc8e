# What a CPU does in some minutes: Adam at the learning rate of the DeepCrack
# recipe, falling to zero.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=9e-4, betas=(0.9, 0.999), weight_decay=0),
)
max_iters = 300
param_scheduler = [
    dict(type='PolyLR', power=1.0, eta_min=0, end=max_iters, by_epoch=False)
]
train_cfg = dict(
    type='ReproducibleIterBasedTrainLoop',
    max_iters=max_iters,
    val_interval=max_iters,
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook', by_epoch=False, interval=100, max_keep_ckpts=1
    ),
    plain_checkpoint=dict(type='PlainCheckpointHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='CrackVisualizationHook'),
)
