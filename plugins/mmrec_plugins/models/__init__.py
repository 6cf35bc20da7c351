"""Built-in recommenders of one file each; the classes are imported on use."""

from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Entry
from mmrec_plugins.models.standard import STANDARD

_MODELS = [
    Entry("random", "mmrec_plugins.models.random:Random", "a seeded random score an item"),
    Entry(
        "popularity",
        "mmrec_plugins.models.popularity:Popularity",
        "number of train interactions (PopRec)",
    ),
    Entry(
        "markov-1",
        "mmrec_plugins.models.markov:Markov",
        "how often an item came right after the newest one of the history",
    ),
    Entry(
        "item-knn",
        "mmrec_plugins.models.item_knn:ItemKNN",
        "cosine of items by their users, summed over the history (Sarwar et al., WWW 2001)",
    ),
    Entry(
        "item-knn-recency",
        "mmrec_plugins.models.item_knn:ItemKNN",
        "item-knn in which an item of the history weighs 0.5^age",
        options={"recency": 0.5},
    ),
    Entry(
        "ease",
        "mmrec_plugins.models.ease:Ease",
        "linear item-to-item autoencoder in closed form (Steck, WWW 2019)",
        baselines=STANDARD,
    ),
    Entry(
        "bm25",
        "mmrec_plugins.models.bm25:BM25",
        "words of the history as a query against the words of each item",
        baselines=STANDARD,
    ),
    Entry(
        "text-nn",
        "mmrec_plugins.models.text_nn:TextNN",
        "cosine to the mean of the history's sentence vectors",
        extra="mmrec-bench[minilm]",
        baselines=STANDARD,
    ),
    Entry(
        "id-successor",
        "mmrec_plugins.models.id_successor:IdSuccessor",
        "leak probe: the newest item's number + 1; for protocol.permute_ids=false",
    ),
    Entry(
        "bpr-mf",
        "mmrec_plugins.models.bpr_mf:BPRMF",
        "matrix factorisation learned on pairs (Rendle et al., UAI 2009)",
        baselines=STANDARD,
    ),
    Entry(
        "lightgcn",
        "mmrec_plugins.models.lightgcn:LightGCN",
        "vectors smoothed over the graph of interactions (He et al., SIGIR 2020)",
        baselines=STANDARD,
    ),
    Entry(
        "sasrec",
        "mmrec_plugins.models.sequential.sasrec:SASRec",
        "self-attention over the history, one drawn negative (Kang & McAuley, ICDM 2018)",
        baselines=STANDARD,
    ),
    Entry(
        "sasrec-ce",
        "mmrec_plugins.models.sequential.sasrec:SASRec",
        "SASRec with a softmax over the catalog (Klenitskiy & Vasilev, RecSys 2023)",
        options={"loss": "ce"},
        baselines=STANDARD,
    ),
    Entry(
        "gru4rec",
        "mmrec_plugins.models.sequential.gru4rec:GRU4Rec",
        "a recurrent network over the history (Hidasi et al., ICLR 2016)",
        baselines=STANDARD,
    ),
    Entry(
        "bert4rec",
        "mmrec_plugins.models.sequential.bert4rec:BERT4Rec",
        "fills in hidden items, reading both ways (Sun et al., CIKM 2019)",
        baselines=STANDARD,
    ),
    Entry(
        "vbpr",
        "mmrec_plugins.models.multimodal.vbpr:VBPR",
        "matrix factorisation with the items' vectors (He and McAuley, AAAI 2016)",
        baselines=STANDARD,
    ),
    Entry(
        "mmgcn",
        "mmrec_plugins.models.multimodal.mmgcn:MMGCN",
        "a graph network for each modality (Wei et al., MM 2019)",
        baselines=STANDARD,
    ),
    Entry(
        "lattice",
        "mmrec_plugins.models.multimodal.lattice:LATTICE",
        "LightGCN with a learned graph of like items (Zhang et al., MM 2021)",
        baselines=STANDARD,
    ),
    Entry(
        "bm3",
        "mmrec_plugins.models.multimodal.bm3:BM3",
        "views of an item that predict one another, no negatives (Zhou et al., WWW 2023)",
        baselines=STANDARD,
    ),
    Entry(
        "freedom",
        "mmrec_plugins.models.multimodal.freedom:FREEDOM",
        "a frozen graph of like items, denoised interactions (Zhou and Shen, MM 2023)",
        baselines=STANDARD,
    ),
    Entry(
        "p5",
        "mmrec_plugins.models.p5.recommender:P5",
        "a T5 names the next item, many prompts and ID schemes (Geng et al., RecSys 2022)",
        baselines=STANDARD,
    ),
    Entry(
        "vip5",
        "mmrec_plugins.models.p5.vip5:VIP5",
        "P5 with visual tokens and adapters (Geng et al., Findings of EMNLP 2023)",
        baselines=STANDARD,
    ),
]


@hookimpl
def mmrec_register_models() -> list[Entry]:
    """Register the small models."""
    return _MODELS
