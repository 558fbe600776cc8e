# Cracks drawn on the fly; needs no files. Train and val differ by the seed.
dataset_type = 'SyntheticCrackDataset'
crop_size = (256, 256)
train_pipeline = [
    dict(type='LoadSyntheticCrack'),
    dict(type='RandomDihedral'),
    dict(type='PackSegInputs'),
]
val_pipeline = [
    dict(type='LoadSyntheticCrack'),
    dict(type='PackSegInputs'),
]
# For inference on image files with a model of this config.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        num_samples=10000,
        seed=0,
        size=crop_size,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        num_samples=64,
        seed=1,
        size=crop_size,
        test_mode=True,
        pipeline=val_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='CrackMetric'),
    dict(type='IoUMetric', iou_metrics=['mIoU', 'mFscore']),
]
test_evaluator = val_evaluator
