# CrackMap, split 7:1:2 by the order of its names.
_base_ = './benchmark_448x448.py'
dataset_type = 'CrackMapDataset'
data_root = 'data/CrackMap'
train_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, split='train')
)
val_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, split='val')
)
test_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, split='test')
)
