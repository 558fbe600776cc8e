# Ablation of the modules: baseline + GRO.
_base_ = './crackssm_tut-448.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='VSSBackbone',
        arch='crackssm',
        drop_path_rate=0.1,
    ),
    decode_head=dict(use_wgm=False),
    auxiliary_head=None,
)
