# DAMamba-T, global average pooling and one linear layer, as released.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmseg.DAMamba',
        arch='tiny',
        out_indices=(3,),
        drop_path_rate=0.15,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=512,
        loss=dict(
            type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'
        ),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02),
    ),
    train_cfg=dict(
        augments=[
            dict(type='Mixup', alpha=0.8),
            dict(type='CutMix', alpha=1.0),
        ]
    ),
)
