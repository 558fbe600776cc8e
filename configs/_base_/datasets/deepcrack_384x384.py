# DeepCrack as He and Wang (CrackMamba) train on it: six flips and rotations of
# each image (here one of eight at a time), 480 x 480, crops of 384 x 384.
_base_ = './benchmark_448x448.py'
dataset_type = 'DeepCrackDataset'
data_root = 'data/DeepCrack'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadCrackAnnotations'),
    dict(type='RandomDihedral'),
    dict(type='Resize', scale=(480, 480), keep_ratio=False),
    dict(type='RandomCrackCrop', crop_size=(384, 384), prob=0.0),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadCrackAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=12,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='train',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='test',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='CrackMetric', protocols=['crack', 'image']),
    dict(type='IoUMetric', iou_metrics=['mIoU', 'mFscore']),
]
test_evaluator = val_evaluator
