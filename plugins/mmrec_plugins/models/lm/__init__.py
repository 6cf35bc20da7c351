"""Language models as recommenders: any causal backbone, tuned or as it is."""

from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Baseline, Entry
from mmrec_plugins.models.standard import STANDARD

_TARGET = "mmrec_plugins.models.lm.recommender:LanguageModelRecommender"
_BASELINES = (
    *STANDARD,
    Baseline("lm-zero-shot", inherits=("backbone", "answer", "normalise", "dtype")),
)


@hookimpl
def mmrec_register_models() -> list[Entry]:
    """Register the language-model recommenders that take any backbone."""
    return [
        Entry(
            "lm-ptv2",
            _TARGET,
            "any causal language model tuned with P-tuning v2 (prefix tuning)",
            options={"adapter": "prefix"},
            baselines=_BASELINES,
        ),
        Entry(
            "lm-lora",
            _TARGET,
            "any causal language model tuned with LoRA",
            options={"adapter": "lora"},
            baselines=_BASELINES,
        ),
        Entry(
            "lm-zero-shot",
            _TARGET,
            "any causal language model, not tuned",
            options={"adapter": "none"},
            baselines=STANDARD,
        ),
    ]
