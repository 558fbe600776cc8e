# Trained on CrackTree260, tested on CRKWH100 (as Zou et al. do).
_base_ = './benchmark_448x448.py'
dataset_type = 'CrackTree260Dataset'
data_root = 'data/CrackTree260'
test_dataset_type = 'CRKWH100Dataset'
test_data_root = 'data/CRKWH100'
train_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, split='all')
)
val_dataloader = dict(
    dataset=dict(type=test_dataset_type, data_root=test_data_root, split='all')
)
test_dataloader = val_dataloader
