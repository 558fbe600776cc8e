# CrackSSM (CVPR 2026). configs/crackssm/README.md says which widths are the
# paper's and which are chosen here.
norm_cfg = dict(type='SyncBN', requires_grad=True)
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    size_divisor=32,
)
model = dict(
    type='ImageGuidedEncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type='CrackSSMBackbone',
        encoder=dict(type='VSSBackbone', arch='crackssm', drop_path_rate=0.1),
        dpsm=dict(in_channels=(32, 64, 128, 256), norm_cfg=norm_cfg),
    ),
    decode_head=dict(
        type='CrackSSMHead',
        in_channels=(32, 64, 128, 256, 3),
        norm_cfg=norm_cfg,
        loss_decode=[
            dict(type='CrackBCELoss', loss_weight=3.0),
            dict(type='CrackDiceLoss', loss_weight=1.0),
        ],
    ),
    auxiliary_head=dict(type='DirectionHead'),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
