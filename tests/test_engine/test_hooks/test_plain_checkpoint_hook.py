from collections import OrderedDict, deque
from pathlib import Path

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from mmseg_crackssm.engine import PlainCheckpointHook
from mmseg_crackssm.engine.hooks.plain_checkpoint_hook import to_plain


def test_checkpoint_loads_weights_only_and_comes_back(tmp_path):
    buffer = HistoryBuffer([0.1, 0.2, 0.30000000000000004], [1, 2, 3], 50)
    weights = OrderedDict(w=torch.ones(2))
    weights._metadata = OrderedDict(version=1)
    checkpoint = dict(
        state_dict=weights,
        meta=dict(classes=('a', np.str_('b')), path=Path('x') / 'y'),
        message_hub=dict(
            log_scalars=OrderedDict({'train/loss': buffer}),
            runtime_info=OrderedDict(
                score=np.float64(0.5),
                table=np.arange(3),
                names=np.array(['p', 'q']),
                ids=deque([1, np.int64(2)]),
                config=ConfigDict(a=dict(b=[1])),
                flag=np.bool_(True),
                odd=object(),
            ),
            resumed_keys=OrderedDict({'train/loss': True}),
        ),
    )
    hook = PlainCheckpointHook()
    hook.before_save_checkpoint(None, checkpoint)
    torch.save(checkpoint, tmp_path / 'a.pth')
    loaded = torch.load(tmp_path / 'a.pth', weights_only=True)
    assert loaded['state_dict']._metadata == weights._metadata
    assert loaded['meta'] == dict(classes=('a', 'b'), path='x/y')
    info = loaded['message_hub']['runtime_info']
    assert info.pop('table').tolist() == [0, 1, 2]
    assert info == dict(
        score=0.5,
        names=['p', 'q'],
        ids=[1, 2],
        config=dict(a=dict(b=[1])),
        flag=True,
        odd=None,
    )
    assert type(info['score']) is float
    assert type(info['flag']) is bool

    hook.after_load_checkpoint(None, loaded)
    restored = loaded['message_hub']['log_scalars']['train/loss']
    assert isinstance(restored, HistoryBuffer)
    assert restored.max_length == 50
    for got, expected in zip(restored.data, buffer.data, strict=True):
        assert got.tolist() == expected.tolist()


def test_original_is_not_changed():
    info = dict(ids=[np.int64(1)])
    to_plain(info)
    assert type(info['ids'][0]) is np.int64


def test_checkpoint_without_message_hub_is_left_alone():
    checkpoint = dict(state_dict={})
    PlainCheckpointHook().after_load_checkpoint(None, checkpoint)
    assert checkpoint == dict(state_dict={})
    # As another program may have written it.
    checkpoint = dict(message_hub=dict(runtime_info={}))
    PlainCheckpointHook().after_load_checkpoint(None, checkpoint)
    assert checkpoint['message_hub']['log_scalars'] == {}
