# mmseg's UNet-S5-D16 with an FCN head, one crack logit, CrackSSM's
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
    # UNet halves its maps four times: sides must be multiples of 16.
    test_cfg=dict(size_divisor=16),
)
head = dict(
    type='FCNHead',
    channels=64,
    num_convs=1,
    concat_input=False,
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
        type='UNet',
        in_channels=3,
        base_channels=64,
        num_stages=5,
        strides=(1, 1, 1, 1, 1),
        enc_num_convs=(2, 2, 2, 2, 2),
        dec_num_convs=(2, 2, 2, 2),
        downsamples=(True, True, True, True),
        enc_dilations=(1, 1, 1, 1, 1),
        dec_dilations=(1, 1, 1, 1),
        norm_cfg=norm_cfg,
        act_cfg=dict(type='ReLU'),
        upsample_cfg=dict(type='InterpConv'),
    ),
    decode_head=dict(
        in_channels=64,
        in_index=4,
        loss_decode=[
            dict(type='CrackBCELoss', pos_weight=1.3, loss_weight=3.0),
            dict(type='CrackDiceLoss', loss_weight=1.0),
        ],
        **head,
    ),
    auxiliary_head=dict(
        in_channels=128,
        in_index=3,
        loss_decode=[
            dict(type='CrackBCELoss', pos_weight=1.3, loss_weight=1.2),
            dict(type='CrackDiceLoss', loss_weight=0.4),
        ],
        **head,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
