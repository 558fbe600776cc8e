# mmseg's Fast-SCNN, one crack logit, CrackSSM's segmentation losses.
norm_cfg = dict(type='SyncBN', requires_grad=True, momentum=0.01)
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
    num_classes=2,
    out_channels=1,
    threshold=0.5,
    norm_cfg=norm_cfg,
    concat_input=False,
    align_corners=False,
)
auxiliary = dict(
    type='FCNHead',
    channels=32,
    num_convs=1,
    loss_decode=[
        dict(type='CrackBCELoss', pos_weight=1.3, loss_weight=1.2),
        dict(type='CrackDiceLoss', loss_weight=0.4),
    ],
    **head,
)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type='FastSCNN',
        downsample_dw_channels=(32, 48),
        global_in_channels=64,
        global_block_channels=(64, 96, 128),
        global_block_strides=(2, 2, 1),
        global_out_channels=128,
        higher_in_channels=64,
        lower_in_channels=128,
        fusion_out_channels=128,
        out_indices=(0, 1, 2),
        norm_cfg=norm_cfg,
        align_corners=False,
    ),
    decode_head=dict(
        type='DepthwiseSeparableFCNHead',
        in_channels=128,
        channels=128,
        in_index=-1,
        loss_decode=[
            dict(type='CrackBCELoss', pos_weight=1.3, loss_weight=3.0),
            dict(type='CrackDiceLoss', loss_weight=1.0),
        ],
        **head,
    ),
    auxiliary_head=[
        dict(in_channels=128, in_index=-2, **auxiliary),
        dict(in_channels=64, in_index=-3, **auxiliary),
    ],
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
