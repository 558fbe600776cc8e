# Smaller crops of CFD, and the figures of He and Wang (CrackMamba).
_base_ = './cfd_320x320.py'
crop_size = (256, 256)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadCrackAnnotations'),
    {{_base_.enlarge}},
    dict(type='RandomCrackCrop', crop_size=crop_size, prob=0.75),
    dict(type='RandomDihedral'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = [
    dict(type='CrackMetric', protocols=['crack', 'image']),
    dict(type='IoUMetric', iou_metrics=['mIoU', 'mFscore']),
]
test_evaluator = val_evaluator
