# Ablation of the modules: baseline + DPSM + WGM.
_base_ = './crackssm_tut-448.py'

model = dict(
    decode_head=dict(use_gro=False),
)
