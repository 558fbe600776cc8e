# Ablation of the sort: DPSM scans its snakes as they are.
_base_ = './crackssm_cfd-320.py'
model = dict(backbone=dict(dpsm=dict(scan='snake')))
