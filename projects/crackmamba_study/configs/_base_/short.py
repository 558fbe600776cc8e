# What a CPU does in some minutes: the DeepCrack recipe's Adam, its learning
# rate falling to zero.
_base_ = '../../../../configs/_base_/schedules/crackmamba_80e_deepcrack.py'
max_iters = 300
param_scheduler = [
    dict(type='PolyLR', power=1.0, eta_min=0, end=max_iters, by_epoch=False)
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=100, max_keep_ckpts=1))
