# He and Wang (CrackMamba) on SteelCrack: Adam at a fixed 6e-3, 70 epochs of
# 3300 images in batches of 9. The best of the epochs counts, by validation.
_base_ = './crackmamba_80e_deepcrack.py'
optim_wrapper = dict(optimizer=dict(lr=6e-3))
train_cfg = dict(max_iters=70 * 367, val_interval=367)
default_hooks = dict(
    checkpoint=dict(interval=367, save_best='crack/miIoU', rule='greater')
)
