# TUT in the layout of its release.
_base_ = './benchmark_448x448.py'
dataset_type = 'TUTDataset'
data_root = 'data/TUT'
train_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, split='train')
)
val_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, split='val')
)
test_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, split='test')
)
