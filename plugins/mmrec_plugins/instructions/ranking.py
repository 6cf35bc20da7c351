"""Instruction builder `ranking`: which of these candidates comes next?"""

from pydantic import Field

from mmrec_bench.config import ComponentConfig
from mmrec_bench.errors import ProtocolError
from mmrec_bench.interfaces import InstructionContext
from mmrec_bench.types import Catalog, Image, Instruction, Item, Message, Query
from mmrec_plugins.instructions.answers import label, read_plain
from mmrec_plugins.instructions.items import ItemOptions, ItemWriter, join_parts
from mmrec_plugins.instructions.knowledge import knowledge_fingerprint


class Ranking:
    """History and labelled candidates as text; what is known of a picture enters as words.

    Where the options ask for images, an item's picture stands within its line, before the title.
    The wording is ours; the task form (history, candidate list, one answer) is that of zero-shot
    rankers such as LLMRank (Hou et al., ECIR 2024) and InstructRec (Zhang et al., 2023).
    """

    class Config(ItemOptions):
        """Options of the `ranking` builder."""

        list_candidates: bool = Field(
            default=True,
            description="show the labelled candidates; without, only answers' likelihoods rank",
        )

    def __init__(self, config: Config) -> None:
        self.config = config
        self._writer = ItemWriter(config)

    @classmethod
    def fingerprint(cls, config: ComponentConfig) -> str:
        """Return a hash of the corpora whose profiles or attributes are shown, else ""."""
        return knowledge_fingerprint(config)

    def prepare(self, context: InstructionContext) -> None:
        """Load profiles and attributes where the options ask for them.

        Raises:
            ConfigError: they were not built; names the command that builds them.
        """
        self._writer.prepare(context)

    def build(self, query: Query, catalog: Catalog) -> Instruction:
        """Ask for the next item; labels are A, B, ... Z, AA ... in the query's candidate order.

        Without the list there are no labels, and `parse` knows candidates by their text alone.

        Raises:
            ProtocolError: the query ranks the whole catalog, which no prompt can list.
        """
        if query.candidates is None:
            raise ProtocolError(
                "the ranking instruction lists its candidates, but the protocol ranks the whole "
                "catalog; use -o protocol.candidates=uniform"
            )
        writer, listed = self._writer, self.config.list_candidates
        shown = query.with_history(self.config.history_length).history.tolist()
        history = [catalog[i] for i in shown]
        candidates = [catalog[i] for i in query.candidates.tolist()]
        labels = tuple(label(i) for i in range(len(candidates) if listed else 0))
        of_candidates, of_history = writer.allot(
            [(candidates if listed else [], True), (history, False)]
        )
        pieces: list[str | Image] = []
        if profile := writer.knowledge.profile_of(query, "en"):
            pieces.append(f"What is known of the shopper: {profile}\n")
        pieces.append("A shopper bought these items, oldest first:\n")
        numbers = map(str, range(1, len(history) + 1))
        pieces += writer.listing(numbers, history, of_history) or ["(nothing yet)"]
        if listed:
            pieces.append("\nCandidates:\n")
            pieces += writer.listing(labels, candidates, of_candidates)
        pieces.append(f"\n{'Which candidate' if listed else 'What'} does the shopper buy next?")
        message = Message("user", join_parts(pieces))
        return Instruction((message,), labels, tuple(map(self.line, candidates)))

    def line(self, item: Item) -> str:
        """Describe one item in a line: title, chosen fields, attributes, words of its picture."""
        return self._writer.line(item)

    def parse(self, text: str, instruction: Instruction) -> list[int]:
        """Read candidate positions, best first, no repeats; see `answers.read_plain`."""
        return read_plain(text, instruction.labels, instruction.answers)
