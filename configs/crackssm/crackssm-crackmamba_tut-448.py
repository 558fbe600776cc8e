# CrackMamba blocks in the stages of CrackSSM's encoder.
_base_ = './crackssm_tut-448.py'
model = dict(
    backbone=dict(encoder=dict(block=dict(type='CrackMambaBlock'))),
)
