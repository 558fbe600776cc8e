"""Test-time augmentation whose scores can be scored."""

from collections.abc import Sequence

import torch
from mmengine.config import Config
from mmengine.model import BaseTTAModel
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from .errors import UsageError


@MODELS.register_module()
class CrackTTAModel(BaseTTAModel):
    """Average the crack probabilities of all augmentations.

    mmseg's ``SegTTAModel`` merges the masks alone, takes the sigmoid of a
    one-channel head a second time, and leaves the scores of the last
    augmentation in ``seg_logits``.
    """

    def merge_preds(
        self, data_samples_list: Sequence[Sequence[SegDataSample]]
    ) -> list[SegDataSample]:
        """Merge the predictions of each image.

        Args:
            data_samples_list: The augmentations of each image, as
                ``postprocess_result`` leaves them: turned back, and with
                ``seg_logits`` (1, H, W) after the sigmoid or (C, H, W)
                before the softmax.

        Returns:
            The first sample of each image, with its label and names, and
            with merged ``pred_sem_seg`` (1, H, W) and ``seg_logits``: the
            mean probability, or of several channels its logarithm.
        """
        merged = []
        for samples in data_samples_list:
            maps = torch.stack([s.seg_logits.data.float() for s in samples])
            if maps.shape[1] == 1:
                scores = maps.mean(dim=0)
                mask = (scores > self.module.decode_head.threshold).to(scores)
            else:
                scores = maps.softmax(dim=1).mean(dim=0)
                mask = scores.argmax(dim=0, keepdim=True)
                scores = scores.clamp_min(torch.finfo(scores.dtype).tiny).log()
            samples[0].set_data(
                dict(
                    seg_logits=PixelData(data=scores),
                    pred_sem_seg=PixelData(data=mask),
                )
            )
            merged.append(samples[0])
        return merged


def switch_on_tta(cfg: Config) -> None:
    """Let a config test with augmentation, in place.

    Without ``tta_pipeline`` the test pipeline is run as it is, mirrored left
    to right, and upside down. ``CrackTTAModel`` merges, unless ``tta_model``
    names another than mmseg's.

    Raises:
        UsageError: If the test pipeline does not end as mmseg's do.
    """
    dataset = cfg.test_dataloader.dataset
    dataset.pipeline = cfg.get('tta_pipeline') or _flipped(dataset.pipeline)
    model = dict(cfg.get('tta_model') or dict(type='CrackTTAModel'))
    if model['type'] == 'SegTTAModel':
        model['type'] = 'CrackTTAModel'
    cfg.model = dict(model, module=cfg.model)


def _flipped(pipeline: Sequence[dict]) -> list[dict]:
    *head, last = pipeline
    if last['type'] != 'PackSegInputs':
        raise UsageError(
            '--tta: the test pipeline ends with '
            f'{last["type"]}, expected PackSegInputs; give tta_pipeline in '
            'the config'
        )
    # The first is not mirrored: its label is the one that is scored.
    flips = [
        dict(type='RandomFlip', prob=0.0),
        dict(type='RandomFlip', prob=1.0, direction='horizontal'),
        dict(type='RandomFlip', prob=1.0, direction='vertical'),
    ]
    return [*head, dict(type='TestTimeAug', transforms=[flips, [last]])]
