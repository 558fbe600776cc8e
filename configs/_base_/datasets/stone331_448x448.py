# Trained on CrackTree260, tested on Stone331 (as Zou et al. do).
_base_ = './cracktree260_448x448.py'
test_dataset_type = 'Stone331Dataset'
test_data_root = 'data/Stone331'
val_dataloader = dict(
    dataset=dict(type=test_dataset_type, data_root=test_data_root, split='all')
)
test_dataloader = val_dataloader
