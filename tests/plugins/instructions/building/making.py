"""Small data sets, teachers that say what a test wants, and builds of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from mmrec_bench import protocol
from mmrec_bench.config import Component, RunConfig, TransferConfig
from mmrec_bench.plugins import installed
from mmrec_bench.teaching import Teacher, WritingRequest, Written
from mmrec_bench.types import Catalog, DataCard, Interactions, RecData, Split, Vocabulary
from mmrec_plugins.instructions.building.config import BuildingConfig, BuildRequest, Language
from mmrec_plugins.instructions.building.provenance import Origin
from mmrec_plugins.instructions.building.sources import Prepared, Sources, Truth
from mmrec_plugins.instructions.building.writing import Workshop, looks_at_pictures
from mmrec_plugins.instructions.corpus import KINDS, Kind
from mmrec_plugins.instructions.teachers.template import Template

COLOURS = ("red", "green", "blue", "white")
MATERIALS = ("glass", "steel", "cotton", "copper", "paper")


class Saying:
    """A teacher that answers each request with what a function makes of it, and counts."""

    def __init__(
        self, say: Callable[[WritingRequest], str | Written], *, looks: bool = False
    ) -> None:
        self.say, self.looks_at_pictures = say, looks
        self.asked: list[WritingRequest] = []

    def write(self, requests: Sequence[WritingRequest]) -> list[Written]:
        """Answer."""
        self.asked += requests
        answers = [self.say(request) for request in requests]
        return [one if isinstance(one, Written) else Written(one, False, 7, 3) for one in answers]

    def fingerprint(self) -> str:
        """Name it."""
        return "saying"


def make_data(*, n_users: int = 12, n_items: int = 20, seed: int = 0) -> RecData:
    """Return users with 5 to 9 interactions each; item i has a title that no other text holds."""
    rng = np.random.default_rng(seed)
    users, items = [], []
    for user in range(n_users):
        row = rng.permutation(n_items)[: int(rng.integers(5, 10))]
        users += [user] * len(row)
        items += row.tolist()
    title = [
        f"Zyx{i:03d} {MATERIALS[i % 5]} {('mug', 'lamp', 'bag')[i % 3]}" for i in range(n_items)
    ]
    catalog = Catalog(
        items=Vocabulary([f"item-{i}" for i in range(n_items)]),
        title=title,
        text=[f"Made of {MATERIALS[i % 5]} for the kitchen." for i in range(n_items)],
        attributes=[{"category": ("Mug", "Lamp", "Bag")[i % 3]} for i in range(n_items)],
        image_words=[(COLOURS[i % 4],) for i in range(n_items)],
    )
    rows = Interactions.build(
        np.array(users),
        np.array(items),
        np.arange(len(users)) * 60,
        rng.integers(1, 6, len(users)).astype(np.float32),
    )
    return RecData(
        name="toy",
        version="0" * 16,
        users=Vocabulary([f"user-{u}" for u in range(n_users)]),
        catalog=catalog,
        interactions=rows,
        card=DataCard(source="made for tests", licence="none needed"),
    )


def with_pictures(data: RecData, folder: Path) -> RecData:
    """Return the data set with one small picture an item."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in range(len(data.catalog)):
        path = folder / f"{i}.png"
        Image.new("RGB", (40, 30), (10 * i % 255, 90, 200)).save(path)
        paths.append((path,))
    return replace(data, catalog=replace(data.catalog, images=paths))


def make_workshop(
    data: RecData,
    teacher: Teacher | None = None,
    *,
    kinds: tuple[Kind, ...] = KINDS,
    protocol_options: dict[str, object] | None = None,
    instructions: dict[str, object] | None = None,
    language: Language = "en",
    seed: int = 0,
    limit: int | None = None,
    transfer: TransferConfig | None = None,
    **building: object,
) -> Workshop:
    """Return a workshop on a data set in memory; the template teacher where none is given."""
    values = {"k_core": 2, "n_candidates": 5, **(protocol_options or {})}
    run = RunConfig.parse(
        {"model": "random", "dataset": "amazon", "seed": seed, "protocol": values}
    ).model_copy(update={"instructions": Component(name="", options=instructions or {})})
    teacher = teacher or Template(Template.Config())
    request = BuildRequest(
        run=run,
        kinds=kinds,
        teacher="template",
        teacher_options={},
        building=BuildingConfig.model_validate(building),
        language=language,
        limit=limit,
    )
    split = protocol.make_split(data, run.protocol, transfer)
    return Workshop(request, _prepared(data, split, request, teacher), teacher,
                    _origin(data, teacher, language), installed())  # fmt: skip


def _prepared(data: RecData, split: Split, request: BuildRequest, teacher: Teacher) -> Prepared:
    sources = Sources(
        dataset=data.name,
        version=data.version,
        users=split.users,
        catalog=split.catalog,
        train=split.train,
        config=request.run,
        building=request.building,
        language=request.language,
        limit=request.limit,
        looks=looks_at_pictures(teacher),
        held_out=split.held_out,
    )
    return Prepared(sources, Truth.of(split), data.card)


def _origin(data: RecData, teacher: Teacher, language: Language) -> Origin:
    return Origin(data.name, data.version, "test", teacher.fingerprint(), language)
