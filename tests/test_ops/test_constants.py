from collections import OrderedDict
from threading import Thread

import torch
from torch.utils.flop_counter import FlopCounterMode

from mmseg_crackssm.ops.constants import TensorCache, concrete_device


def test_builds_once_per_key():
    cache, built = TensorCache(), []

    def build():
        built.append(1)
        return torch.arange(3)

    assert cache.get('a', build) is cache.get('a', build)
    assert len(built) == 1
    assert cache.get('b', build) is not cache.get('a', build)


def test_drops_the_least_recently_used():
    cache = TensorCache(capacity=2)
    first = cache.get(1, lambda: torch.ones(1))
    cache.get(2, lambda: torch.ones(1))
    cache.get(1, lambda: torch.ones(1))
    cache.get(3, lambda: torch.ones(1))
    assert len(cache) == 2
    assert cache.get(1, lambda: torch.zeros(1)) is first
    assert cache.get(2, lambda: torch.zeros(1)) == 0


class MeddledTensors(OrderedDict):
    """Another thread asks for 'b' whenever 'a' has been looked up."""

    def __init__(self, cache):
        super().__init__()
        self.cache = cache

    def get(self, key):
        tensor = super().get(key)
        if key == 'a':
            thread = Thread(
                target=self.cache.get, args=('b', lambda: torch.zeros(1))
            )
            thread.start()
            thread.join(timeout=0.2)
        return tensor


def test_another_thread_may_evict_a_tensor():
    cache = TensorCache(capacity=1)
    first = cache.get('a', lambda: torch.ones(1))
    tensors = MeddledTensors(cache)
    tensors.update(cache._tensors)
    cache._tensors = tensors
    assert cache.get('a', lambda: torch.zeros(1)) is first


def test_keeps_nothing_that_belongs_to_a_mode():
    cache = TensorCache()
    with FlopCounterMode(display=False):
        cache.get(1, lambda: torch.ones(1))
    assert len(cache) == 0


def test_tensor_made_in_inference_mode_serves_training():
    cache = TensorCache()
    with torch.inference_mode():
        index = cache.get(1, lambda: torch.arange(3))
    x = torch.randn(3, requires_grad=True)
    x.gather(0, index).sum().backward()
    assert x.grad.tolist() == [1, 1, 1]


def test_concrete_device():
    assert concrete_device(None) == torch.device('cpu')
    assert concrete_device('cpu') == torch.device('cpu')
    assert concrete_device('cuda:1') == torch.device('cuda', 1)
