# Under three minutes, for `make demo`.
_base_ = './budget_15min.py'
default_hooks = dict(
    logger=dict(interval=20),
    time_budget=dict(seconds=175),
)
