"""Teacher `lm`: a language model that runs here writes, whole answers or field by field."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mmrec_bench.config import ComponentConfig, operational
from mmrec_bench.teaching import WritingRequest, Written
from mmrec_plugins.instructions.teachers.filling import Filling, Slot, fill

if TYPE_CHECKING:
    from mmrec_plugins.models.lm.backbones import Backbone

_VERSION = 1  # raised whenever the same model would be asked or read in another way


class LanguageModelTeacher:
    """Any backbone of the language-model recommenders as a teacher; it reads text only.

    Small models break JSON and forget fields. With `fill=fields`, the form is given and the model
    writes each value. With `fill=whole` it writes the whole answer.
    """

    class Config(ComponentConfig):
        """Options of the teacher `lm`."""

        model: str = Field(
            "auto", description="backbone: auto, a name, a folder or a hub id; as lm:NAME"
        )
        fill: Literal["fields", "whole"] = Field(
            "fields", description="write JSON field by field, or as a whole"
        )
        choose: bool = Field(
            default=False,
            description="with fill=fields, take the most likely of the values that a field allows "
            "(the source of an attribute); without, the first: where a value stands is checked "
            "afterwards, and a model that sees no picture cannot tell",
        )
        max_prompt: int = Field(
            1536, ge=64, description="tokens of a question; its middle is left out to fit"
        )
        dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
            None, description="of the weights; left out: what suits the device"
        )
        device: str = operational("auto", description="auto, cpu, cuda, cuda:1 ...")

    def __init__(self, config: Config) -> None:
        self.config = config
        self._loaded: Backbone | None = None
        self._name: str | None = None
        self._stop_tokens: dict[str, tuple[int, ...]] = {}

    def fingerprint(self) -> str:
        """Name version, options and the hash of the weights.

        Raises:
            ModelError: the backbone is nowhere.
        """
        from mmrec_plugins.models.lm import locating  # noqa: PLC0415 - torch: where it is needed

        place = locating.locate(self._backbone_name())
        options = self.config.model_dump_json(exclude={"model", "device"})
        return f"lm {_VERSION} {self._backbone_name()} {locating.fingerprint(place)} {options}"

    def write(self, requests: Sequence[WritingRequest]) -> list[Written]:
        """Answer each request, in order.

        Raises:
            ModelError: the backbone cannot be used.
        """
        prompts = [self._prompt(request) for request in requests]
        written = [Written("")] * len(requests)
        by_field = [
            i
            for i, request in enumerate(requests)
            if request.schema is not None and self.config.fill == "fields"
        ]
        whole = [i for i in range(len(requests)) if i not in set(by_field)]
        for i, answer in zip(by_field, self._fill(by_field, requests, prompts), strict=True):
            written[i] = answer
        if whole:
            limit = max(requests[i].max_tokens for i in whole)
            texts = self._generate([prompts[i] for i in whole], limit)
            for i, ids in zip(whole, texts, strict=True):
                cut = ids[: requests[i].max_tokens]
                text = self._backbone().tokenizer.decode(cut).strip()
                written[i] = Written(text, prompt_tokens=len(prompts[i]), answer_tokens=len(cut))
        return written

    def _fill(
        self,
        chosen: Sequence[int],
        requests: Sequence[WritingRequest],
        prompts: Sequence[list[int]],
    ) -> list[Written]:
        """Fill the schemas of the chosen requests side by side."""
        running: dict[int, tuple[Filling, Slot]] = {}
        done: dict[int, str] = {}
        tokens = dict.fromkeys(chosen, 0)
        for i in chosen:
            filling = fill(requests[i].schema or {})
            running[i] = (filling, next(filling))
        while running:
            answers = self._answer({i: slot for i, (_, slot) in running.items()}, prompts)
            for i, (text, n_tokens) in answers.items():
                tokens[i] += n_tokens
                filling, _ = running[i]
                try:
                    running[i] = (filling, filling.send(text))
                except StopIteration as stop:
                    done[i] = stop.value
                    del running[i]
        return [
            Written(done[i], prompt_tokens=len(prompts[i]), answer_tokens=tokens[i]) for i in chosen
        ]

    def _answer(
        self, slots: dict[int, Slot], prompts: Sequence[list[int]]
    ) -> dict[int, tuple[str, int]]:
        """Return what stands in each slot, and the tokens that the model wrote for it."""
        tokenizer = self._backbone().tokenizer
        inputs = {i: [*prompts[i], *tokenizer.encode(slot.before)] for i, slot in slots.items()}
        answers: dict[int, tuple[str, int]] = {}
        choosing = [i for i, slot in slots.items() if slot.choices]
        if not self.config.choose:
            answers |= {i: (slots[i].choices[0], 0) for i in choosing}
        elif choosing:
            for i, best in zip(choosing, self._choose(choosing, slots, inputs), strict=True):
                answers[i] = (slots[i].choices[best], 0)
        free: dict[tuple[int, str], list[int]] = {}
        for i, slot in slots.items():
            if not slot.choices:
                free.setdefault((slot.max_tokens, slot.ends_at), []).append(i)
        for (limit, ends_at), group in free.items():
            texts = self._generate([inputs[i] for i in group], limit, self._stops(ends_at))
            for i, ids in zip(group, texts, strict=True):
                answers[i] = (tokenizer.decode(ids), len(ids))
        return answers

    def _choose(
        self, chosen: Sequence[int], slots: dict[int, Slot], inputs: dict[int, list[int]]
    ) -> list[int]:
        from mmrec_plugins.models.lm.scoring import ScoringRequest, score_answers  # noqa: PLC0415

        backbone = self._backbone()
        encode = backbone.tokenizer.encode
        requests = [
            ScoringRequest(inputs[i], [encode(choice) for choice in slots[i].choices])
            for i in chosen
        ]
        scores = score_answers(backbone.model, requests, pad_id=backbone.tokenizer.pad_id)
        return [int(row.argmax()) for row in scores]

    def _stops(self, ends_at: str) -> tuple[int, ...]:
        """Return the tokens that end a slot: those with its sign or a line break in them."""
        tokenizer = self._backbone().tokenizer
        if ends_at not in self._stop_tokens:
            texts = map(tokenizer.decode, ([token] for token in range(tokenizer.vocab_size)))
            self._stop_tokens[ends_at] = tuple(
                token for token, text in enumerate(texts) if not {ends_at, "\n"}.isdisjoint(text)
            )
        return self._stop_tokens[ends_at]

    def _generate(
        self, prompts: Sequence[list[int]], limit: int, stops: Sequence[int] = ()
    ) -> list[list[int]]:
        from mmrec_plugins.models.lm.generation import generate  # noqa: PLC0415

        backbone = self._backbone()
        tokenizer = backbone.tokenizer
        return generate(
            backbone.model,
            prompts,
            eos_id=(*tokenizer.stop_ids, *stops),
            pad_id=tokenizer.pad_id,
            max_new_tokens=limit,
        )

    def _prompt(self, request: WritingRequest) -> list[int]:
        """Return the question's tokens; pictures are not read."""
        messages = [{"role": message.role, "content": message.text} for message in request.messages]
        ids = self._backbone().tokenizer.chat(messages)
        limit = self.config.max_prompt
        half = limit // 2
        return ids if len(ids) <= limit else [*ids[: limit - half], *ids[len(ids) - half :]]

    def _backbone_name(self) -> str:
        if self._name is None:
            from mmrec_plugins.models.lm.backbones import resolve_auto  # noqa: PLC0415

            auto = self.config.model == "auto"
            self._name = resolve_auto(self.config.device).name if auto else self.config.model
        return self._name

    def _backbone(self) -> "Backbone":
        if self._loaded is None:
            from mmrec_plugins.models.lm.backbones import load_backbone  # noqa: PLC0415

            self._loaded = load_backbone(
                self._backbone_name(),
                device=self.config.device,
                dtype=self.config.dtype or "auto",
            )
        return self._loaded
