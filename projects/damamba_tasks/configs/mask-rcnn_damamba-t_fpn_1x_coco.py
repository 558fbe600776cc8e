_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
    './_base_/runtime.py',
]
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmseg.DAMamba',
        arch='tiny',
        drop_path_rate=0.3,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    ),
    neck=dict(in_channels=[80, 160, 320, 512]),
)
optim_wrapper = dict(
    constructor='mmseg.NoDecayOptimWrapperConstructor',
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(no_decay=('A_log', 'D', 'dt_proj_bias')),
)
