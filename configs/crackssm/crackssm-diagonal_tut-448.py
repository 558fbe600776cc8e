# Ablation of the directions (paper Table 5): the two diagonal directions only.
_base_ = './crackssm_tut-448.py'

directions = ('diagonal', 'anti_diagonal')
model = dict(
    backbone=dict(dpsm=dict(directions=directions)),
    auxiliary_head=dict(directions=directions),
)
