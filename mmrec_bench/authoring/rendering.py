"""Fills in the templates of a kind and writes them, never over anything."""

from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template

from mmrec_bench.authoring.names import Names
from mmrec_bench.errors import ConfigError, StorageError
from mmrec_bench.plugins import plural_of


@dataclass(frozen=True)
class Kind:
    """How a plugin kind is spoken of, and tried.

    Attributes:
        module: file of the component.
        noun: what it is.
        summary: for `mmrec-bench list`.
        use: a command that uses it; `{}` stands for its name.
    """

    module: str
    noun: str
    summary: str
    use: str


KINDS = {
    "model": Kind(
        "model",
        "model",
        "co-occurrence with the newest items of the history",
        "mmrec-bench run --model {} --dataset amazon",
    ),
    "dataset": Kind(
        "dataset",
        "data set",
        "interactions from a CSV file",
        "mmrec-bench run --model popularity --dataset {} --data-root FOLDER_OF_THE_CSV_FILE",
    ),
    "instructions": Kind(
        "builder",
        "instruction builder",
        "numbered candidates, answered by numbers",
        "mmrec-bench run --model lm-zero-shot --dataset amazon --instructions {}",
    ),
    "encoder": Kind(
        "encoder",
        "encoder",
        "colour histogram of the picture",
        "mmrec-bench run --model vbpr --dataset amazon -o vectors.name={}",
    ),
    "metric": Kind(
        "metric",
        "metric",
        "half-life utility of the first k places",
        "mmrec-bench run --model popularity --dataset amazon --metrics ndcg@10,{}@10",
    ),
}


def commands(names: Names, kind: str) -> list[str]:
    """Return what to type next, from the folder of the new plugin."""
    return [
        "pip install -e '.[test]'",
        "pytest",
        "ruff check . && ruff format --check . && mypy",
        f"mmrec-bench check-plugin {names.component}",
        KINDS[kind].use.format(names.component),
        "mmrec-bench leaderboard results -o leaderboard.csv",
    ]


def render(names: Names, kind: str) -> dict[str, str]:
    """Return the files of a new distribution: path below its folder -> text."""
    about = KINDS[kind]
    article = "an" if about.noun[0] in "aeiou" else "a"
    values = {
        "name": names.distribution,
        "package": names.package,
        "component": names.component,
        "cls": names.cls,
        "module": about.module,
        "noun": about.noun,
        "article": article.capitalize(),
        "plural": plural_of(kind),
        "summary": about.summary,
        "version": version("mmrec-bench"),
        "commands": "\n".join(commands(names, kind)),
    }
    sources = {
        "pyproject.toml": "pyproject.toml.tmpl",
        "README.md": "README.md.tmpl",
        ".gitignore": "gitignore.tmpl",
        f"{names.package}/__init__.py": "init.py.tmpl",
        f"{names.package}/{about.module}.py": f"{kind}/part.py.tmpl",
        f"tests/test_{names.package}.py": f"{kind}/test.py.tmpl",
    }
    templates = files("mmrec_bench.authoring") / "templates"
    if (templates / kind / "init.py.tmpl").is_file():
        sources[f"{names.package}/__init__.py"] = f"{kind}/init.py.tmpl"
    texts = {
        path: Template((templates / source).read_text(encoding="utf-8")).substitute(values)
        for path, source in sources.items()
    }
    return {**texts, f"{names.package}/py.typed": ""}


def write(texts: dict[str, str], folder: Path) -> None:
    """Write the files into a new folder.

    Raises:
        ConfigError: there is something of that name.
        StorageError: it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        for path, text in texts.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    except FileExistsError:
        raise ConfigError(
            f"{folder} is there already and is left as it is; choose another name or -O FOLDER"
        ) from None
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}") from None
