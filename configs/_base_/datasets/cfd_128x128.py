# Smaller crops, for networks whose iterations are too dear at 320 x 320.
_base_ = './cfd_320x320.py'
crop_size = (128, 128)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadCrackAnnotations'),
    {{_base_.enlarge}},
    dict(type='RandomCrackCrop', crop_size=crop_size, prob=0.75),
    dict(type='RandomDihedral'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
