_base_ = [
    '../_base_/models/crackssm.py',
    '../_base_/datasets/cfd_320x320.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/budget_15min.py',
]
model = dict(
    # Too few epochs for stochastic depth to help.
    backbone=dict(encoder=dict(drop_path_rate=0.0)),
    decode_head=dict(
        loss_decode=[
            # Balances precision and recall at the threshold of 0.5.
            dict(type='CrackBCELoss', pos_weight=1.8, loss_weight=3.0),
            dict(type='CrackDiceLoss', loss_weight=1.0),
        ]
    ),
)
