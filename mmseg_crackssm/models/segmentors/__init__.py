from .image_guided_encoder_decoder import ImageGuidedEncoderDecoder

__all__ = ['ImageGuidedEncoderDecoder']
