import ast
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "mmrec_bench"
HEAVY = {"torch", "transformers", "peft", "openai", "polars", "mmrec_plugins"}

# each module may import modules of lower layers, and of its own
LAYERS = [
    {"errors"},
    {"types", "files", "paths", "progress", "guard", "terminal"},
    {"config", "images", "download"},
    {
        "interfaces",
        "teaching",
        "ranks",
        "splitting",
        "candidates",
        "ties",
        "rowmask",
        "toplists",
        "counting",
        "statistics",
        "resampling",
        "cases",
    },
    {"hookspecs", "registry", "spaces"},
    {"plugins", "protocol", "transfer", "examples", "evaluation", "permutations", "pictures"},
    {
        "predictions",
        "records",
        "descriptions",
        "itemkeys",
        "vectors",
        "studies",
        "observers",
        "tracker_process",
    },
    {"runfolder", "planning", "comparison"},
    {"collecting", "asking", "loaded", "measuring"},
    {"runner", "revisiting", "leaderboard", "objective", "selection"},
    {"tables", "sweeps", "configfile", "trialtable", "contract", "authoring", "testing"},
    {"report"},
    {"cli", "__main__"},
]


def module_of(path: Path) -> str:
    return path.relative_to(CORE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            found |= {base} if base != "mmrec_bench" else {f"{base}.{a.name}" for a in node.names}
    return found


def top_level_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda p: str(p.relative_to(CORE)))
def test_a_module_imports_only_its_own_and_lower_layers(path: Path) -> None:
    level = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    own = module_of(path)
    if own == "__init__":
        return
    assert own in level, f"{own} belongs to no layer; add it to LAYERS"
    for name in imports(path):
        if name.startswith("mmrec_bench."):
            other = name.split(".")[1]
            assert level[other] <= level[own], f"{own} imports {other} of a higher layer"


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda p: str(p.relative_to(CORE)))
def test_the_core_imports_no_plugin_and_nothing_heavy_at_import_time(path: Path) -> None:
    assert not top_level_imports(path) & HEAVY


def test_no_core_module_names_a_plugin() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in CORE.rglob("*.py")}
    assert not [str(path) for path, text in texts.items() if "mmrec_plugins" in text]
