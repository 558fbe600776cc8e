import os

import cv2
import numpy as np
import pytest

from mmseg_crackssm.visualization import has_image_writer, write_image


@pytest.mark.parametrize('name', [b'x.png', b'stra\xdfe/bl\xe4tter.png'])
def test_any_file_name(tmp_path, name):
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    path = tmp_path / os.fsdecode(name)
    write_image(path, image)
    data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    assert np.array_equal(cv2.imdecode(data, cv2.IMREAD_COLOR), image)


@pytest.mark.parametrize('name', [b'x', b'x.abc', b'x.\xe4'])
def test_suffix_of_no_format(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    assert not has_image_writer(path)
    with pytest.raises(ValueError, match=r'such as \.png'):
        write_image(path, np.zeros((4, 5), dtype=np.uint8))
