from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class ImageGuidedEncoderDecoder(EncoderDecoder):
    """An ``EncoderDecoder`` whose heads can also read the image.

    The normalised input image is appended to the features, so that a head
    reads it by ``in_index=-1``. Everything else, backbones, necks, heads
    and test modes, is mmseg's.
    """

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Features of the images, and the images.

        Args:
            inputs: Normalised images (B, 3, H, W).

        Returns:
            The feature maps of the backbone (and neck), then ``inputs``.
        """
        features = super().extract_feat(inputs)
        if isinstance(features, Tensor):
            features = (features,)
        return (*features, inputs)
