"""The configuration file that a search leaves: every value spelled out, and how it was chosen."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from mmrec_bench.config import MODALITIES, Component, ComponentConfig, RunConfig, identity
from mmrec_bench.errors import ConfigError
from mmrec_bench.files import atomic_write
from mmrec_bench.planning import PlannedRun, registry_of
from mmrec_bench.plugins import Plugins
from mmrec_bench.records import now
from mmrec_bench.registry import NAME_RULE, is_name
from mmrec_bench.selection import Selection
from mmrec_bench.spaces import as_text
from mmrec_bench.tables import number


def default_path(config: RunConfig) -> Path:
    """Return configs/<dataset>/<model>.yaml, where the settings of a published row lie.

    A data set that a general loader reads goes by the label that it was given.

    Raises:
        ConfigError: the label is no name of a folder.
    """
    label = config.dataset.options.get("label") or config.dataset.name
    if not is_name(label):
        raise ConfigError(f"dataset.label is {label!r}, expected {NAME_RULE}")
    return Path("configs") / label / f"{config.model.name}.yaml"


def check_writable(path: Path, *, force: bool) -> None:
    """Refuse to overwrite a file, before the work is done.

    Raises:
        ConfigError: it is there.
    """
    if path.exists() and not force:
        raise ConfigError(
            f"{path} exists and is not overwritten; name another file or give --force"
        )


class _Dumper(yaml.SafeDumper):
    """YAML as the committed configurations have it: lists on one line."""


def _list_on_one_line(dumper: _Dumper, values: list[Any]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


_Dumper.add_representer(list, _list_on_one_line)


def write_config(path: Path, selection: Selection, plugins: Plugins, *, force: bool) -> None:
    """Write the chosen settings so that `mmrec-bench run --config` runs exactly them.

    Raises:
        ConfigError: the file is there.
        StorageError: it cannot be written.
    """
    check_writable(path, force=force)
    values = config_values(selection.planned, plugins)
    text = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    atomic_write(path, (header(path, selection) + text).encode())


def config_values(planned: PlannedRun, plugins: Plugins) -> dict[str, Any]:
    """Return a run as a configuration file holds it, defaults spelled out."""
    config = planned.config
    values: dict[str, Any] = {
        "model": {"name": config.model.name, **identity(planned.options)},
        "dataset": _spelled_out(config.dataset, "dataset", plugins),
    }
    sections = (
        ("instructions", "encoder", "vectors")
        if planned.recommender.reads_instructions
        else tuple(MODALITIES)
    )
    for section in sections:
        component: Component | None = getattr(config, section)
        if component is not None and component.name:
            values[section] = _spelled_out(component, section, plugins)
    values["protocol"] = config.protocol.model_dump(mode="json", exclude_none=True)
    if config.transfer is not None:
        transfer = config.transfer.model_dump(mode="json", exclude_none=True)
        values["transfer"] = transfer
    for name in ("limit_cases", "images", "permutations"):
        if getattr(config, name) != type(config).model_fields[name].default:
            values[name] = getattr(config, name)
    return values | {"metrics": list(config.metrics), "seed": config.seed}


def _spelled_out(component: Component, section: str, plugins: Plugins) -> dict[str, Any]:
    registry = plugins[registry_of(section)]
    options: ComponentConfig = registry.configure(component.name, component.options, section)
    return {"name": component.name, **identity(options)}


def header(path: Path, selection: Selection) -> str:
    """Say how the values were chosen; what a test says of them stands in records alone."""
    search, best, spec = selection.search, selection.best, selection.planned.spec
    seeds = f"seed {spec.seed}"
    if search.fit_seeds > 1:
        seeds = f"mean of seeds {spec.seed} to {spec.seed + search.fit_seeds - 1}"
    value = f"{number(best.value)} in trial {best.number + 1}"
    own = "" if selection.own is None else f", the model as it is {number(selection.own.value)}"
    found = f"{value}{own}, the median of all {number(selection.median())}"
    data = f"{spec.dataset.name} {spec.dataset.version[:12]}"
    lines = [
        "Chosen by `mmrec-bench tune` on validation alone; no test case was scored:",
        "",
        f"  {search.metric} on {selection.n_cases} validation cases: {found}",
        f"  {selection.count()}; TPE, seed of the search {search.seed}; model with {seeds}",
        f"  {now()[:10]}, mmrec-bench {version('mmrec-bench')}, {data}",
        "  searched:",
        *(
            f"    {key} in {domain}: {as_text(best.settings[key])}"
            for key, domain in search.space.items()
        ),
        "",
        "The best of many is flattered by having been chosen, so its value above is no result:",
        "",
        f"  mmrec-bench run --config {path}",
    ]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)
