# Any folder of images and masks: --cfg-options data_root=FOLDER
_base_ = './benchmark_448x448.py'
dataset_type = 'CrackFolderDataset'
data_root = 'data/my_cracks'
train_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, split='train')
)
val_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, split='val')
)
test_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, split='test')
)
