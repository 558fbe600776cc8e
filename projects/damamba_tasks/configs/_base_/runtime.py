# Puts mmseg_crackssm's classes where mmdet and mmpretrain find them by scope.
custom_imports = dict(imports=['mmseg_crackssm'], allow_failed_imports=False)
custom_hooks = [dict(type='mmseg.PlainCheckpointHook')]
