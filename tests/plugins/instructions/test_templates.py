import pytest
import yaml

from mmrec_bench.errors import ConfigError, DataFormatError
from mmrec_bench.types import Image
from mmrec_plugins.instructions.recommendation import wordings
from mmrec_plugins.instructions.templates import (
    Language,
    Slots,
    Templates,
    check_templates,
    load_templates,
    parse_pairs,
)

SLOTS = {"ask": Slots.of("items", optional=("name",)), "phrase": Slots()}
GOOD = (("ask.1", "Rank {items}"), ("ask.2", "{name}: sort {items}"), ("phrase.none", "nothing"))


def check(*pairs: tuple[str, str]) -> Templates:
    return check_templates(pairs, SLOTS, "toy.yaml")


def test_a_family_lists_its_wordings_in_order() -> None:
    assert check(*GOOD).family("ask") == ("ask.1", "ask.2")


def test_an_unknown_family_or_wording_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'ask'"):
        check(*GOOD).family("aks")
    with pytest.raises(ConfigError, match=r"did you mean 'ask\.1'"):
        check(*GOOD)["ask.11"]


def test_values_are_not_read_for_placeholders() -> None:
    assert check(*GOOD).fill("ask.1", items="{name} {0}") == "Rank {name} {0}"


def test_pictures_stand_where_the_placeholder_stood() -> None:
    picture = Image(None, 3)
    pieces = check(*GOOD).pieces("ask.1", items=["1. ", picture, "mug"])
    assert pieces == ["Rank ", "1. ", picture, "mug"]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("ask.1", "Sort {items}"), "'ask.1' stands there twice"),
        (("ask.3", "Rank  {items}"), "'ask.3' says the same as 'ask.1'"),
        (("ask.3", "Rank {item}"), "placeholder 'item'; did you mean 'items'"),
        (("ask.3", "Rank them"), "lacks the placeholder 'items'"),
        (("ask.3", "Rank {items"), "write {{ for a brace"),
        (("ask.3", "Rank {items!r}"), "a format or a conversion"),
        (("ask.3", ""), "is empty"),
        (("tell.1", "Rank {items}"), "unknown family of 'tell.1'"),
    ],
)
def test_a_bad_wording_is_named(pair: tuple[str, str], message: str) -> None:
    with pytest.raises(DataFormatError) as error:
        check(*GOOD, pair)
    assert message in str(error.value)
    assert "toy.yaml" in str(error.value)


def test_a_missing_family_is_named() -> None:
    with pytest.raises(DataFormatError, match="no wording of 'phrase'"):
        check(*GOOD[:2])


def test_a_repeated_key_of_a_file_is_not_lost() -> None:
    node = yaml.compose("ask.1: a {items}\nask.1: b {items}\n", yaml.SafeLoader)
    with pytest.raises(DataFormatError, match="twice"):
        check_templates(parse_pairs(node, "toy.yaml"), SLOTS, "toy.yaml")


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1]\n", "", "a: {b: c}\n"])
def test_only_a_mapping_of_texts_is_read(text: str) -> None:
    with pytest.raises(DataFormatError, match="expected"):
        parse_pairs(yaml.compose(text, yaml.SafeLoader), "toy.yaml")


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(DataFormatError, match=r"templates/xx\.yaml"):
        load_templates("xx", SLOTS)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(
    "family",
    [
        *(f"preference.{kind}" for kind in ("none", "implicit", "explicit")),
        *(f"intention.{kind}" for kind in ("vague", "specific")),
        *(f"form.{kind}" for kind in ("ranking", "choice", "pairwise", "pointwise")),
    ],
)
def test_every_axis_has_three_wordings_in_each_language(language: Language, family: str) -> None:
    assert len(wordings(language).family(family)) >= 3


def test_both_languages_have_the_same_ids() -> None:
    assert list(wordings("en")) == list(wordings("zh"))


def test_each_file_is_written_in_its_language() -> None:
    texts = {language: "".join(wordings(language).values()) for language in ("en", "zh")}
    assert not any("\u4e00" <= letter <= "\u9fff" for letter in texts["en"])
    chinese = [t for t in wordings("zh").values() if any("\u4e00" <= c <= "\u9fff" for c in t)]
    assert len(chinese) == len(wordings("zh"))
