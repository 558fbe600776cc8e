# Three benchmarks together; scores of each beside those of all. Their folders
# are moved by --cfg-options roots.Crack500=FOLDER and so on.
_base_ = './benchmark_448x448.py'
roots = dict(
    Crack500='data/CRACK500',
    DeepCrack='data/DeepCrack',
    CrackMap='data/CrackMap',
)
train_sets = [
    dict(
        type=f'{name}Dataset',
        data_root=root,
        split='train',
        pipeline={{_base_.train_pipeline}},
    )
    for name, root in roots.items()
]
test_sets = [
    dict(
        type=f'{name}Dataset',
        data_root=root,
        split='test',
        test_mode=True,
        pipeline={{_base_.test_pipeline}},
    )
    for name, root in roots.items()
]
train_dataloader = dict(
    dataset=dict(_delete_=True, type='ConcatDataset', datasets=train_sets)
)
val_dataloader = dict(
    dataset=dict(_delete_=True, type='ConcatDataset', datasets=test_sets)
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='CrackMetric', sources=roots),
    dict(type='IoUMetric', iou_metrics=['mIoU', 'mFscore']),
]
test_evaluator = val_evaluator
