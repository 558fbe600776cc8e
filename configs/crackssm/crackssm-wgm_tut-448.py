# Ablation of the modules: baseline + WGM.
_base_ = './crackssm_tut-448.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='VSSBackbone',
        arch='crackssm',
        drop_path_rate=0.1,
    ),
    decode_head=dict(use_gro=False),
    auxiliary_head=None,
)
