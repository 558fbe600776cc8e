# SteelCrack as He and Wang (CrackMamba) train on it: as released, which holds
# augmented images already.
_base_ = './benchmark_448x448.py'
dataset_type = 'SteelCrackDataset'
data_root = 'data/Steelcrack'
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadCrackAnnotations'),
    dict(type='PackSegInputs'),
]
dataset = dict(type=dataset_type, data_root=data_root, pipeline=pipeline)
train_dataloader = dict(batch_size=9, dataset=dict(split='train', **dataset))
val_dataloader = dict(dataset=dict(split='val', **dataset))
test_dataloader = dict(dataset=dict(split='test', **dataset))
val_evaluator = [
    dict(type='CrackMetric', protocols=['crack', 'image']),
    dict(type='IoUMetric', iou_metrics=['mIoU', 'mFscore']),
]
test_evaluator = val_evaluator
