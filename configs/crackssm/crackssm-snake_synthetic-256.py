# Ablation of the sort: DPSM scans its snakes as they are.
_base_ = './crackssm_synthetic-256.py'
model = dict(backbone=dict(dpsm=dict(scan='snake')))
