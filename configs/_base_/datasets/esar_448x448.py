# Trained on Crack500, tested on all of ESAR (as Yang et al. do).
_base_ = './crack500_448x448.py'
test_dataset_type = 'ESARDataset'
test_data_root = 'data/ESAR'
val_dataloader = dict(
    dataset=dict(type=test_dataset_type, data_root=test_data_root, split='all')
)
test_dataloader = val_dataloader
