# SteelCrack as He and Wang (CrackMamba) train on it: as released, which holds
# augmented images already.
_base_ = './deepcrack_384x384.py'
dataset_type = 'SteelCrackDataset'
data_root = 'data/Steelcrack'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadCrackAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=9,
    dataset=dict(
        type=dataset_type, data_root=data_root, pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, split='val')
)
test_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, split='test')
)
