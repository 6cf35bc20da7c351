"""Where an entry comes from: data set, teacher, and the hash of what was asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmrec_bench.types import Message
from mmrec_plugins.instructions.building.config import Language
from mmrec_plugins.instructions.building.journal import prompt_hash
from mmrec_plugins.instructions.corpus import CorpusEntry


@dataclass(frozen=True, slots=True)
class Origin:
    """What all entries of a build share.

    Attributes:
        dataset: its name.
        dataset_version: its content hash.
        teacher: as it was asked for.
        teacher_fingerprint: what its answers depend on.
        language: of the questions.
    """

    dataset: str
    dataset_version: str
    teacher: str
    teacher_fingerprint: str
    language: Language

    def entry(self, *, messages: Sequence[Message], **fields: Any) -> CorpusEntry:  # noqa: ANN401
        """Return an entry with its provenance; `fields` are those of `CorpusEntry`."""
        return CorpusEntry(
            dataset=self.dataset,
            dataset_version=self.dataset_version,
            teacher=self.teacher,
            teacher_fingerprint=self.teacher_fingerprint,
            language=self.language,
            prompt_hash=prompt_hash(messages),
            **fields,
        )
