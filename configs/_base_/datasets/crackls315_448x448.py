# Trained on CrackTree260, tested on CrackLS315 (as Zou et al. do).
_base_ = './cracktree260_448x448.py'
test_dataset_type = 'CrackLS315Dataset'
test_data_root = 'data/CrackLS315'
val_dataloader = dict(
    dataset=dict(type=test_dataset_type, data_root=test_data_root, split='all')
)
test_dataloader = val_dataloader
