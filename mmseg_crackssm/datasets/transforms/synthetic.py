"""The transform that draws the samples of ``SyntheticCrackDataset``."""

from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from ..synthetic import draw_crack


@TRANSFORMS.register_module()
class LoadSyntheticCrack(BaseTransform):
    """Draw the sample that ``index``, ``seed``, ``size``, ``clarity`` mean.

    Takes the place of ``LoadImageFromFile`` and ``LoadCrackAnnotations``.

    Required Keys: index, seed, size (height, width); clarity (0 if absent).

    Added Keys:

    - img (np.uint8, (H, W, 3)), BGR
    - img_shape, ori_shape
    - gt_seg_map (np.uint8, (H, W)), 0 background, 1 crack
    - seg_fields
    """

    def transform(self, results: dict) -> dict:
        """Add image and label map to ``results``."""
        img, mask = draw_crack(
            index=results['index'],
            seed=results['seed'],
            size=results['size'],
            clarity=results.get('clarity', 0.0),
        )
        results['img'] = img
        results['img_shape'] = img.shape[:2]
        results['ori_shape'] = img.shape[:2]
        results['gt_seg_map'] = mask
        results.setdefault('seg_fields', []).append('gt_seg_map')
        return results

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}()'
