# Trained on Crack500, tested on all of CrackTree206 (as Yang et al. do).
_base_ = './crack500_448x448.py'
test_dataset_type = 'CrackTree206Dataset'
test_data_root = 'data/CrackTree206'
val_dataloader = dict(
    dataset=dict(type=test_dataset_type, data_root=test_data_root, split='all')
)
test_dataloader = val_dataloader
