"""Chat models behind OpenAI's protocol, as recommenders and as teacher; imported on use."""

from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Entry
from mmrec_plugins.models.standard import STANDARD

_TARGET = "mmrec_plugins.models.openai_chat.recommender:ChatRecommender"


@hookimpl
def mmrec_register_models() -> list[Entry]:
    """Register the recommenders that ask a chat model over HTTP."""
    return [
        Entry(
            "gpt-zero-shot",
            _TARGET,
            "a chat model of OpenAI or any compatible server, asked without examples",
            options={"instructions": "zero-shot"},
            baselines=STANDARD,
        ),
        Entry(
            "gpt-few-shot",
            _TARGET,
            "a chat model of OpenAI or any compatible server, shown other users' choices first",
            options={"instructions": "few-shot"},
            baselines=STANDARD,
        ),
    ]


@hookimpl
def mmrec_register_teachers() -> list[Entry]:
    """Register the teacher that asks a chat model over HTTP."""
    return [
        Entry(
            "openai",
            "mmrec_plugins.models.openai_chat.teacher:OpenAITeacher",
            "a chat model of OpenAI or any compatible server, e.g. openai:gpt-4o",
        )
    ]
