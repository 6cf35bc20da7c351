"""Options of P5 and VIP5."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from mmrec_bench.config import added, operational, searched
from mmrec_bench.errors import did_you_mean
from mmrec_plugins.models.training import TrainingConfig

Scheme = Literal["sequential", "random", "collaborative", "independent", "title"]
FAMILIES = ("sequential", "direct", "rating", "review", "explanation")


class P5Config(TrainingConfig):
    """Options of `p5`. Sizes left open are those of the random backbone that is named."""

    backbone: str = Field(
        "random-tiny",
        description="random-tiny | random-small (T5-small's shape): random weights and a tokenizer "
        "made here; or a folder or hub id with T5 weights in safetensors, e.g. google-t5/t5-small",
    )
    d_model: int | None = Field(None, ge=4, description="width, of random weights only")
    d_kv: int | None = Field(None, ge=1, description="width of a head, of random weights only")
    d_ff: int | None = Field(None, ge=1, description="width between, of random weights only")
    num_layers: int | None = Field(
        None, ge=1, description="layers of encoder and of decoder, of random weights only"
    )
    num_heads: int | None = Field(None, ge=1, description="attention heads, of random weights only")
    dropout_rate: float = Field(0.1, ge=0, lt=1, description="dropout of all layers")
    ids: Scheme = Field(
        "sequential",
        description="how items are named: numbers in order of appearance, random numbers, codes "
        "from co-occurrence (collaborative), one new token each, or the words of their titles",
    )
    numbering: Literal["train", "catalog"] = Field(
        "train",
        description="ids=sequential: numbers in order of appearance in train; or the run's own "
        "numbers, which leak the next item where protocol.permute_ids is false",
    )
    n_clusters: int = Field(
        10, ge=2, description="ids=collaborative: clusters that a cluster is divided into"
    )
    cluster_size: int = Field(
        100, ge=1, description="ids=collaborative: a cluster of at most so many is a leaf"
    )
    title_tokens: int = Field(10, ge=1, description="ids=title: a title is cut to so many tokens")
    whole_words: bool = Field(
        default=True, description="add an embedding that tells which tokens are one word"
    )
    families: dict[str, float] = Field(
        dict.fromkeys(FAMILIES, 1.0),
        description="prompt family -> share of the training examples; what the data set cannot "
        "ask for is left out and said; review and explanation need -o dataset.reviews=true",
    )
    review_tokens: int = added(
        64, ge=1, description="a review, its title and its explanation are cut to so many tokens"
    )
    history_length: int = Field(20, ge=1, description="newest items of a history that are named")
    n_candidates: int = Field(
        20, ge=2, description="candidates that a training prompt lists, the target among them"
    )
    ranking_prompt: int = Field(
        0, ge=0, description="which wording asks for the next item when items are ranked"
    )
    ranking: Literal["beams", "exact"] = Field(
        "beams",
        description="of a whole catalog: the items that a beam search finds, or all by their "
        "exact likelihood",
    )
    beams: int = Field(20, ge=1, description="ranking=beams: items found; others are left out")
    normalise: Literal["vocabulary", "allowed"] = Field(
        "vocabulary",
        description="a token's probability is its share of the whole vocabulary, as published, or "
        "of the tokens that go on to some item",
    )
    exclude_seen: bool = Field(
        default=True,
        description="ranking=beams: spend no beam on items of the user's train interactions and "
        "history; under protocol.mask_seen=false, where they can be targets, beams find them too",
    )
    validation_cases: int | None = Field(
        500, ge=1, description="validate on so many cases, the first ones; None = on all"
    )
    score_batch: int = operational(16, ge=1, description="queries read at once when scoring")
    learning_rate: float = searched(
        1e-3, low=1e-4, high=1e-2, log=True, gt=0, description="of Adam"
    )
    epochs: int = Field(10, ge=1, description="at most so many passes over the train data")
    batch_size: int = Field(64, ge=1, description="examples a step")

    @field_validator("families")
    @classmethod
    def _check_families(cls, families: Mapping[str, float]) -> Mapping[str, float]:
        for name, share in families.items():
            if name not in FAMILIES:
                raise ValueError(f"unknown prompt family {name!r}{did_you_mean(name, FAMILIES)}")
            if share < 0:
                raise ValueError(f"the share of family {name!r} is {share}, not 0 or more")
        if not sum(families.values()):
            raise ValueError("every family's share is 0")
        return families


class VIP5Config(P5Config):
    """Options of `vip5`, beside those of `p5`."""

    visual_tokens: int = Field(2, ge=1, description="k, tokens that stand for an item's picture")
    visual_hidden: int | None = Field(
        None, ge=1, description="width between the mapping's two layers; None = d_model"
    )
    adapter_reduction: int = Field(
        8, ge=1, description="an adapter's width is d_model divided by this"
    )
    tune: Literal["auto", "adapters", "all"] = Field(
        "auto",
        description="what learns: adapters (and pictures' mapping), or all weights; auto = all "
        "where the backbone's are random",
    )
    tune_embeddings: bool = Field(
        default=True, description="tune=adapters: the token embeddings learn too"
    )
    tune_norms: bool = Field(default=True, description="tune=adapters: the layer norms learn too")
