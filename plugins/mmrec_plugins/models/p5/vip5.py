"""VIP5: P5 that also sees pictures, with adapters in a frozen backbone.

Geng, Tan, Liu, Fu and Zhang, VIP5: Towards Multimodal Foundation Models for Recommendation,
Findings of EMNLP 2023.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from mmrec_bench.errors import ModelError
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import FloatArray
from mmrec_plugins.models.item_vectors import have_vectors
from mmrec_plugins.models.p5 import backbone
from mmrec_plugins.models.p5.network import (
    P5Network,
    VIP5Network,
    add_adapters,
    freeze_backbone,
)
from mmrec_plugins.models.p5.options import VIP5Config
from mmrec_plugins.models.p5.recommender import P5


class VIP5(P5):
    """P5 with k visual tokens behind the name of each item in a prompt (section 3.2).

    An item's vector, by the run's image encoder, is mapped to k tokens that share the item's
    whole-word embedding and have a category embedding of their own. Items without a picture have
    only their name. Adapters stand behind each sub-layer, and the backbone is frozen but for what
    `tune_embeddings` and `tune_norms` name (section 3.3); from random weights all learns.

    Departures from the paper: those of `P5`, and vectors of whichever encoder the run names where
    the paper has CLIP's, centred and scaled to a root mean square of 1.
    """

    Config: ClassVar[type[VIP5Config]] = VIP5Config
    reads_modalities: ClassVar[tuple[str, ...]] = ("image",)
    default_vectors: ClassVar[Mapping[str, str]] = {"vectors": "efficientnet"}

    config: VIP5Config

    def _wrap(self, t5: Any, data: TrainingData) -> P5Network:  # noqa: ANN401
        config = self.config
        network = VIP5Network(
            t5,
            _vectors(data),
            whole_words=config.whole_words,
            n_visual=config.visual_tokens,
            hidden=config.visual_hidden,
        )
        add_adapters(t5, config.adapter_reduction)
        everything = backbone.is_random(config) if config.tune == "auto" else config.tune == "all"
        if not everything:
            freeze_backbone(network, embeddings=config.tune_embeddings, norms=config.tune_norms)
        return network

    def _pictures(self, data: TrainingData) -> tuple[list[bool], int]:
        return have_vectors(_vectors(data)).tolist(), self.config.visual_tokens


def _vectors(data: TrainingData) -> FloatArray:
    vectors = data.modalities.get("image")
    if vectors is None:
        raise ModelError("vip5 needs vectors of pictures; name an encoder: -o vectors.name=...")
    return vectors
