# Ablation of the directions (paper Table 5): the two axial directions only.
_base_ = './crackssm_tut-448.py'

directions = ('horizontal', 'vertical')
model = dict(
    backbone=dict(dpsm=dict(directions=directions)),
    auxiliary_head=dict(directions=directions),
)
