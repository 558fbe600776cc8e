# Ablation of the direction loss (paper Table 4): no direction loss.
_base_ = './crackssm_tut-448.py'

model = dict(auxiliary_head=None)
# F_dir only sorts, and a sort has no gradient: its layers stay as they are.
find_unused_parameters = True
