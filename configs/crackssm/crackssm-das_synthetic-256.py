# Dynamic adaptive scan in DPSM in place of token reordering.
_base_ = './crackssm_synthetic-256.py'
model = dict(backbone=dict(dpsm=dict(scan='das')))
