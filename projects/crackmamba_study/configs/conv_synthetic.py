_base_ = [
    '../../../configs/_base_/models/crackseu.py',
    '../../../configs/_base_/datasets/synthetic_256x256.py',
    '../../../configs/_base_/default_runtime.py',
    './_base_/short.py',
]
val_evaluator = [
    dict(type='CrackMetric', protocols=['crack', 'image']),
    dict(type='IoUMetric', iou_metrics=['mIoU', 'mFscore']),
]
test_evaluator = val_evaluator
