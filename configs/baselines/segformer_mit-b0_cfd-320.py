_base_ = [
    '../_base_/models/segformer_mit-b0.py',
    '../_base_/datasets/cfd_320x320.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/budget_15min.py',
]
# The transformer needs a smaller step than the convolutional networks.
optim_wrapper = dict(optimizer=dict(lr=1e-3))
