"""What a run would take, before anything is asked."""

import math
from collections.abc import Sequence

from mmrec_plugins.models.openai_chat.asking import ChatRequest
from mmrec_plugins.models.openai_chat.client import CHARACTERS_PER_TOKEN, ChatClient
from mmrec_plugins.models.openai_chat.log import RequestLog

Facts = dict[str, str | int | float]


def estimate(client: ChatClient, requests: Sequence[ChatRequest]) -> Facts:
    """Return requests, tokens and dollars that are still to come; nothing is sent.

    Tokens of the prompts come from characters: at the rate of this model's answers in the log,
    else at 4 characters a token (English text). Answers are taken to be as long as those in the
    log on average, else as long as allowed.
    """
    path = client.config.log_path
    characters = tokens = 0
    mean = math.nan
    missing = {client.plain_key(request): request for request in requests}
    n_all = len(missing)
    if path.exists():
        with RequestLog(path) as store:
            found = client.find(store, list(missing.values()))
            missing = {
                key: request
                for (key, request), kept in zip(missing.items(), found, strict=True)
                if kept is None
            }
            characters, tokens, mean = store.token_rate(client.who)
    rate = characters / tokens if tokens else float(CHARACTERS_PER_TOKEN)
    prompt = sum(
        math.ceil(request.n_characters / rate) + client.picture_tokens(request)
        for request in missing.values()
    )
    most = sum(request.max_tokens for request in missing.values())
    written = most if math.isnan(mean) else math.ceil(mean * len(missing))
    batch = client.config.batch
    return {
        "requests": n_all,
        "requests_in_log": n_all - len(missing),
        "requests_to_send": len(missing),
        "prompt_tokens": prompt,
        "answer_tokens": written,
        "tokens_estimated_by": f"{rate:.2f} characters a token "
        + ("as in the request log" if tokens else "(a rule of thumb)"),
        "pictures": sum(len(request.shown) for request in missing.values()),
        **_dollars(client, prompt, written, most, batch=batch),
    }


def _dollars(client: ChatClient, prompt: int, written: int, most: int, *, batch: bool) -> Facts:
    prices = client.prices
    if prices.price is None:
        return {"cost_usd": "unknown", "cost_usd_at_most": "unknown"}
    return {
        "cost_usd": round(prices.cost(prompt, 0, written, batch=batch), 6),
        "cost_usd_at_most": round(prices.cost(prompt, 0, most, batch=batch), 6),
        "prices": f"{prices.source} ({prices.date})",
    }
