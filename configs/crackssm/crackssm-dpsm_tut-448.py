# Ablation of the modules: baseline + DPSM.
_base_ = './crackssm_tut-448.py'

model = dict(
    decode_head=dict(use_wgm=False, use_gro=False),
)
