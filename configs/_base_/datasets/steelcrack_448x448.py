# SteelCrack in the layout of its release.
_base_ = './benchmark_448x448.py'
dataset_type = 'SteelCrackDataset'
data_root = 'data/Steelcrack'
train_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, split='train')
)
val_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, split='val')
)
test_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, split='test')
)
