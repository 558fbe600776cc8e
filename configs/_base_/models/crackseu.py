# CrackSeU-B as He and Wang (CrackMamba) take it, with LN over the channels.
norm_cfg = dict(type='LN2d', eps=1e-6)
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    size_divisor=32,
    test_cfg=dict(size_divisor=32),
)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(type='CrackSeUBackbone', blocks='conv', norm_cfg=norm_cfg),
    neck=dict(type='CrackSeUFusion', norm_cfg=norm_cfg),
    decode_head=dict(
        type='CrackSeUHead',
        loss_decode=[
            dict(type='CrackBCELoss', loss_weight=1.0),
            dict(
                type='CrackDiceLoss',
                smooth=1e-4,
                per_image=True,
                loss_weight=1.0,
            ),
        ],
    ),
    auxiliary_head=dict(
        type='CrackSeUSideHead',
        norm_cfg=norm_cfg,
        loss_decode=dict(type='CrackCoarseBCELoss', loss_weight=0.1),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
