# CrackForest (CFD): 480 x 320 images, trained on crops of 320 x 320.
# data/CFD is written by tools/dataset_converters/cfd.py.
dataset_type = 'CrackForestDataset'
data_root = 'data/CFD'
data_prefix = dict(img_path='images', seg_map_path='masks')
crop_size = (320, 320)
# All images were taken from one distance, so most keep their scale; some are
# enlarged, since few of the forty hold a wide crack.
enlarge = dict(
    type='RandomApply',
    prob=0.3,
    transforms=[
        dict(
            type='RandomResize',
            scale=(480, 320),
            ratio_range=(1.0, 2.5),
            keep_ratio=True,
        )
    ],
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadCrackAnnotations'),
    enlarge,
    dict(type='RandomCrackCrop', crop_size=crop_size, prob=0.75),
    dict(type='RandomDihedral'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadCrackAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    # Few images and little time: more steps beat larger batches.
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=data_prefix,
        ann_file='splits/train.txt',
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
        data_root=data_root,
        data_prefix=data_prefix,
        ann_file='splits/val.txt',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
# Figures here are for the val split; splits/test.txt holds the other third
# of the full release.
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='CrackMetric'),
    dict(type='IoUMetric', iou_metrics=['mIoU', 'mFscore']),
]
test_evaluator = val_evaluator
