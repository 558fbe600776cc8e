# DeepCrack (Liu et al.); it has no validation split.
_base_ = './benchmark_448x448.py'
dataset_type = 'DeepCrackDataset'
data_root = 'data/DeepCrack'
train_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, split='train')
)
val_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, split='test')
)
test_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, split='test')
)
