"""From encoded queries to scores: likelihoods of the answers, or one that the model writes."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mmrec_bench.types import Answers, FloatArray, Query, Scores
from mmrec_plugins.instructions.reading import normal, read_answer
from mmrec_plugins.models.lm.adapters import untuned
from mmrec_plugins.models.lm.encoding import Encoded, PromptEncoder
from mmrec_plugins.models.lm.generation import generate
from mmrec_plugins.models.lm.presets import LanguageModelConfig
from mmrec_plugins.models.lm.scoring import ScoringRequest, score_answers


class Answering:
    """Asks a model and scores the candidates, in the way that the options say."""

    def __init__(self, encoder: PromptEncoder, config: LanguageModelConfig) -> None:
        self.encoder, self.config = encoder, config
        self._pad_id = encoder.tokenizer.pad_id
        self._titles = {name for title in encoder.catalog.title if (name := normal(title))}

    def encode(self, queries: Iterable[Query]) -> list[Encoded]:
        """Turn queries into prompts, with the prompt without history where `lift` needs it."""
        lift = self.config.normalise == "lift" and self.config.answer != "generate"
        encode = self.encoder.encode_with_blank if lift else self.encoder.encode
        return [encode(query) for query in queries]

    def score(
        self,
        model: Any,  # noqa: ANN401 - a transformers or a PEFT model, both untyped
        encoded: Sequence[Encoded],
        blanks: Sequence[FloatArray] | None = None,
    ) -> Scores:
        """Return (B, C) float32 scores; `blanks` as of `blank_scores`, computed where not given."""
        if self.config.answer == "generate":
            return self._write(model, encoded)
        answers = [one.answer_ids for one in encoded]
        requests = [ScoringRequest(one.prompt_ids, list(one.answer_ids)) for one in encoded]
        rows = score_answers(model, requests, pad_id=self._pad_id)
        blanks = self.blank_scores(model, encoded) if blanks is None else blanks
        rows = [row - blank for row, blank in zip(rows, blanks, strict=True)]
        if self.config.normalise == "mean":
            lengths = [np.array([len(ids) for ids in each], np.float32) for each in answers]
            rows = [row / length for row, length in zip(rows, lengths, strict=True)]
        return Scores(np.stack(rows).astype(np.float32))

    def blank_scores(
        self,
        model: Any,  # noqa: ANN401 - a transformers or a PEFT model, both untyped
        encoded: Sequence[Encoded],
    ) -> list[FloatArray]:
        """Return (C,) log-likelihoods without history, per query; zeros unless normalise=lift.

        After the ranking loss they are the untuned backbone's, as they were while it was tuned; it
        sees no pictures.
        """
        if self.config.normalise != "lift":
            return [np.zeros(len(one.answer_ids), np.float32) for one in encoded]
        requests = [ScoringRequest(list(one.blank_ids), list(one.answer_ids)) for one in encoded]
        if self.config.objective != "ranking":
            return score_answers(model, requests, pad_id=self._pad_id)
        requests = [
            ScoringRequest(_texts(each.prompt_ids), [_texts(ids) for ids in each.answer_ids])
            for each in requests
        ]
        with untuned(model):
            return score_answers(model, requests, pad_id=self._pad_id)

    def _write(self, model: Any, encoded: Sequence[Encoded]) -> Scores:  # noqa: ANN401 - as above
        """Let the model write, and read what it wrote."""
        tokenizer = self.encoder.tokenizer
        written = generate(
            model,
            [one.prompt_ids for one in encoded],
            eos_id=tokenizer.stop_ids,
            pad_id=tokenizer.pad_id,
            max_new_tokens=self.config.max_new_tokens,
        )
        texts = tuple(tokenizer.decode(ids).strip() for ids in written)
        readings = [
            read_answer(text, one.instruction, self.encoder.builder, self._titles)
            for text, one in zip(texts, encoded, strict=True)
        ]
        rows = [np.full(len(one.instruction.answers), np.nan, np.float32) for one in encoded]
        for row, reading in zip(rows, readings, strict=True):
            row[reading.order] = -np.arange(len(reading.order), dtype=np.float32)
        answers = Answers(
            text=texts,
            outcome=tuple(reading.outcome for reading in readings),
            hallucinated=np.array([reading.hallucinated for reading in readings], np.int32),
            prompt_tokens=np.array([len(one.prompt_ids) for one in encoded], np.int32),
            answer_tokens=np.array([len(ids) for ids in written], np.int32),
        )
        return Scores(np.stack(rows), answers)


def _texts(ids: Sequence[int]) -> list[int]:
    """Return ids without those that are pictures."""
    return [token for token in ids if token >= 0]
