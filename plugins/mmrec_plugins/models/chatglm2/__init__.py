"""ChatGLM2: exact loading of the original checkpoint, its tokenizer, its prefix encoders."""

from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Baseline, Entry
from mmrec_plugins.models.standard import STANDARD


@hookimpl
def mmrec_register_models() -> list[Entry]:
    """Register the main model: ChatGLM2 tuned with P-tuning v2."""
    return [
        Entry(
            "chatglm2-ptv2",
            "mmrec_plugins.models.lm.recommender:LanguageModelRecommender",
            "ChatGLM2-6B (or the embedded micro one) tuned with P-tuning v2 on instructions",
            options={"adapter": "prefix", "backbone": "auto"},
            baselines=(
                *STANDARD,
                Baseline("lm-zero-shot", inherits=("backbone", "answer", "normalise", "dtype")),
            ),
        ),
    ]
