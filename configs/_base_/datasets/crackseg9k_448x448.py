# CrackSeg9k, written by tools/dataset_converters/crackseg9k.py. Its masks have
# soft edges, which are crack from mid-grey on.
_base_ = './benchmark_448x448.py'
dataset_type = 'CrackSeg9kDataset'
data_root = 'data/CrackSeg9k'
crop_size = (448, 448)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadCrackAnnotations', threshold=127),
    dict(type='Resize', scale=crop_size, keep_ratio=False),
    dict(type='RandomDihedral'),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=crop_size, keep_ratio=False),
    dict(type='LoadCrackAnnotations', threshold=127),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='train',
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='test',
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
