_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
    './_base_/classifier.py',
    './_base_/runtime.py',
]
# Of each of 8 processes.
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(
    constructor='mmseg.NoDecayOptimWrapperConstructor',
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(_delete_=True, no_decay=('A_log', 'D', 'dt_proj_bias')),
)
