import hashlib
from itertools import islice

import pytest

from mmrec_plugins.datasets import amazon_sample
from mmrec_plugins.datasets.amazon_sample import draw_sample
from mmrec_plugins.models.chatglm2.corpus import BRANDS, STAGES, Corpus, Document

N_DOCUMENTS = 2000


def written(document: Document) -> str:
    return "".join(prompt + answer for prompt, answer in document)


@pytest.fixture(scope="module")
def text() -> str:
    return "\n".join(written(d) for d in islice(Corpus(11).documents(), N_DOCUMENTS)).casefold()


def test_the_same_seed_gives_the_same_documents() -> None:
    first, second = (list(islice(Corpus(5).documents(), 50)) for _ in range(2))
    assert first == second
    assert first != list(islice(Corpus(6).documents(), 50))


def test_a_seed_gives_the_text_that_it_always_gave() -> None:
    digest = hashlib.sha256()
    for mix in STAGES:
        for document in islice(Corpus(0, mix).documents(), 200):
            digest.update(repr(document).encode())
    assert digest.hexdigest() == "1d0081f8d31c69e552aef5c127cadb48c8a329c27b7c098085e17cdab40c9551"


def test_no_brand_of_the_sample_is_a_brand_of_the_corpus() -> None:
    assert not {b.casefold() for b in BRANDS} & {b.casefold() for b in amazon_sample.BRANDS}


def test_no_title_or_history_of_the_sample_occurs(text: str) -> None:
    for brand in amazon_sample.BRANDS:
        assert brand.casefold() not in text
    for seed in range(10):
        sample = draw_sample(seed=seed, n_users=400, n_items=300)
        titles = [item.title.casefold() for item in sample.items]
        # every title, so every history, holds a brand that never occurs
        assert all(any(b.casefold() in t for b in amazon_sample.BRANDS) for t in titles)
        assert not any(title in text for title in titles)
        for history in sample.histories:
            lines = "\n".join(titles[i] for i in history)
            assert not history or lines not in text


def test_documents_are_of_every_kind(text: str) -> None:
    for phrase in ("i like ", "stars", "candidates:", "[round 1]", "what is its ", "basket of "):
        assert phrase in text


def test_a_curriculum_bounds_the_lines() -> None:
    for document in islice(Corpus(1).documents(max_lines=6), 300):
        assert sum(len((p + a).splitlines()) for p, a in document) <= 60
        assert sum(len(written([one]).splitlines()) for one in document[:1]) <= 20
