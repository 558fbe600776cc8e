# CrackMamba blocks as a neck behind mmseg's ResNet-18 (V1c), and
# CrackSSMHead.
_base_ = './crackssm-head_r18_tut-448.py'
model = dict(
    neck=dict(
        _delete_=True,
        type='BlockNeck',
        in_channels=(64, 128, 256, 512),
        block=dict(type='CrackMambaBlock'),
    ),
    auxiliary_head=None,
)
