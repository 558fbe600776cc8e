# Trained on CrackTree260, tested on CRKWH100 (as Zou et al. do).
_base_ = './benchmark_448x448.py'
train_dataloader = dict(
    dataset=dict(
        type='CrackTree260Dataset', data_root='data/CrackTree260', split='all'
    )
)
val_dataloader = dict(
    dataset=dict(
        type='CRKWH100Dataset', data_root='data/CRKWH100', split='all'
    )
)
test_dataloader = val_dataloader
