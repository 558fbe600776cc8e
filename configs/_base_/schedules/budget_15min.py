# 15 minutes of training on whatever machine this is, for comparisons at equal
# cost. TimeBudgetHook sets the learning rate and ends the training.
optim_wrapper = dict(
    # bfloat16 where the device is faster in it: more iterations.
    type='BFloat16OptimWrapper',
    constructor='NoDecayOptimWrapperConstructor',
    optimizer=dict(
        type='AdamW', lr=2e-3, betas=(0.9, 0.999), weight_decay=0.01
    ),
    clip_grad=dict(max_norm=5),
    paramwise_cfg=dict(no_decay=('A_log', 'D', 'dt_proj_bias')),
)
param_scheduler = []
train_cfg = dict(
    type='ReproducibleIterBasedTrainLoop',
    # Never reached; validation only at the end.
    max_iters=10**9,
    val_interval=10**9,
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    time_budget=dict(type='TimeBudgetHook', seconds=900),
    checkpoint=dict(
        type='CheckpointHook', by_epoch=False, interval=500, max_keep_ckpts=2
    ),
    plain_checkpoint=dict(type='PlainCheckpointHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='CrackVisualizationHook'),
)
