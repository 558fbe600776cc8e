# Dynamic adaptive scan in DPSM together with token reordering.
_base_ = './crackssm_synthetic-256.py'
model = dict(backbone=dict(dpsm=dict(scan='das+atr')))
