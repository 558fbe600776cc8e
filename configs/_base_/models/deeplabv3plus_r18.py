# mmseg's DeepLabV3+ on ResNet-18 (D8), one crack logit, CrackSSM's
# segmentation losses.
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
head = dict(
    dropout_ratio=0.1,
    num_classes=2,
    out_channels=1,
    threshold=0.5,
    norm_cfg=norm_cfg,
    align_corners=False,
)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type='ResNetV1c',
        depth=18,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        dilations=(1, 1, 2, 4),
        strides=(1, 2, 1, 1),
        norm_cfg=norm_cfg,
        norm_eval=False,
        style='pytorch',
        contract_dilation=True,
    ),
    decode_head=dict(
        type='DepthwiseSeparableASPPHead',
        in_channels=512,
        in_index=3,
        channels=128,
        dilations=(1, 12, 24, 36),
        c1_in_channels=64,
        c1_channels=12,
        loss_decode=[
            dict(type='CrackBCELoss', pos_weight=1.3, loss_weight=3.0),
            dict(type='CrackDiceLoss', loss_weight=1.0),
        ],
        **head,
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=256,
        in_index=2,
        channels=64,
        num_convs=1,
        concat_input=False,
        loss_decode=[
            dict(type='CrackBCELoss', pos_weight=1.3, loss_weight=1.2),
            dict(type='CrackDiceLoss', loss_weight=0.4),
        ],
        **head,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
