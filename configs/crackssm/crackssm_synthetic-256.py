# The demo: clear cracks, trained on patches of 128, tested on 256.
_base_ = [
    '../_base_/models/crackssm.py',
    '../_base_/datasets/synthetic_256x256.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/demo.py',
]
train_dataloader = dict(dataset=dict(size=128, clarity=1.0))
val_dataloader = dict(dataset=dict(clarity=1.0))
test_dataloader = val_dataloader
