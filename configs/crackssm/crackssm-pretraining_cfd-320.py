# Drawn cracks for a quarter of the iterations, then CFD.
_base_ = './crackssm_cfd-320.py'
train_cfg = dict(
    pretraining=dict(
        iters=1000,
        dataset=dict(
            type='SyntheticCrackDataset',
            num_samples=100000,
            seed=0,
            size=(256, 256),
            pipeline=[
                dict(type='LoadSyntheticCrack'),
                dict(type='RandomDihedral'),
                dict(type='PackSegInputs'),
            ],
        ),
    )
)
