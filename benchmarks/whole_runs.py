"""Whole runs on MovieLens-100k: ours beside RecBole, RecTools, implicit, cornac and LensKit.

    python benchmarks/whole_runs.py --data DIR [--peers-python PATH] [--repeats 3]
    python benchmarks/whole_runs.py --data DIR --models sasrec-ce --repeats 1 --sasrec-epochs 3

DIR holds u.data and u.item. Each run is a process of its own, start-up, reading, fitting and
ranking all items for all users included, with threads pinned; the systems take turns. Printed are
medians of wall and CPU seconds (user and system, of the process and its children), the peak memory
of a process, and HR@10 and NDCG@10.

What is compared:

- Ours is the command `mmrec-bench run --config configs/movielens/<model>.yaml --no-baselines` with
  an empty results folder and cache: early stopping on validation, checks of the posters, bootstrap
  intervals and the record are all in it. The configs were chosen on validation, and among settings
  about as good for the fewest epochs (large batches, high learning rates).
- RecBole is its quick start with its own defaults, early stopping on validation included. So the
  ratio is that of two whole runs as each project ships them, not of one epoch against another.
- The others fit once, without validation, and list the top 10 of all users.
- All get the split that ours makes, in files. General models: 8:1:1 at random by user, all items
  ranked, train and validation masked. SASRec, which all train with a softmax: leave-one-out, all
  items ranked, all that a user took before masked; RecBole divides by itself here, and may order
  interactions of the same second otherwise. Where NDCG@10 is more than 5 % from ours, the row says
  so.

Where RecBole 1.2.1 is not what it says, or takes too long:

- Its Pop counts an item once a batch, which is not popularity.
- Its LightGCN calls a method that scipy 1.13 removed; it is put back. `--lightgcn-epochs N` stops
  it after N epochs, which makes its seconds a lower bound.
- Its SASRec reads each user's history once for each of its items, so that an epoch takes minutes,
  and its default is up to 300 of them. `--sasrec-epochs N` gives it N. As long as it is behind ours
  in quality, its seconds are a lower bound of what equal quality costs it. Its own figures rank
  seen items too: the note gives them, and the row those of the same weights with seen items masked.
  Its validation stays unmasked.

The peers want an environment of their own, which `--peers-python` names (RecBole 1.2.1 fails on
later releases of these; wheels of cornac 2.3 need a newer libstdc++ than Debian 12 has); a system
that cannot run is left out with its reason:

    pip install recbole==1.2.1 "rectools[torch]" implicit "cornac<2.3" lenskit "pyarrow<21" \\
        "setuptools<81" "numpy<2" "pandas<3" "scipy<1.14"
    pip install --no-deps rectools==0.19.0     # asks for a newer scipy than RecBole runs on
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from whole_runs_peers import NAME, PARTS, PEERS, RECBOLE, Job, K, Quality

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "movielens"
PEERS_SCRIPT = Path(__file__).with_name("whole_runs_peers.py")


@dataclass(frozen=True)
class Found:
    """One run: seconds, MB, and its quality."""

    wall: float
    cpu: float
    peak: float
    quality: Quality


def run(job: Job, peers_python: str) -> Found:
    """Run one job in a process and measure it.

    Raises:
        RuntimeError: it failed; its last line says why.
    """
    folder = Path(job.folder)
    said, complained = folder / "stdout", folder / "stderr"
    if job.system == "ours":
        command = [sys.executable, "-m", "mmrec_bench", "--quiet", "run"]
        command += ["--config", str(CONFIGS / f"{job.model}.yaml"), "--no-baselines"]
        command += ["--data-root", job.data, "--results", str(folder / "results"), "--json"]
        command += ["--seed", str(job.seed)]
    else:
        command = [peers_python, str(PEERS_SCRIPT), json.dumps(asdict(job))]
    count = str(job.threads)
    pinned = ("OMP", "OPENBLAS", "MKL", "NUMBA", "NUMEXPR", "LK")
    env = os.environ | {f"{name}_NUM_THREADS": count for name in pinned}
    # RecBole loads its own checkpoint, which torch refuses by default since 2.6.
    env |= {"XDG_CACHE_HOME": str(folder), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    env |= {"PYTHONWARNINGS": "ignore"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # else everybody compiles all again at each start
    begun = time.monotonic()
    with said.open("wb") as out, complained.open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=env, cwd=folder)
        _, status, used = os.wait4(process.pid, 0)
    wall = time.monotonic() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = complained.read_text(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(" ".join(last) or f"exit code {process.returncode}")
    printed = said.read_text()
    if job.system == "ours":
        metrics = json.loads(printed)[0]["metrics"]
        quality = Quality(metrics[f"hit_rate@{K}"]["value"], metrics[f"ndcg@{K}"]["value"])
    else:
        quality = Quality(**json.loads(printed.splitlines()[-1]))
    return Found(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, quality)


def main() -> None:
    """Read the command line, run everything in turns, and print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Help)
    parser.add_argument("--data", type=Path, help="folder of u.data and u.item")
    parser.add_argument("--models", default=",".join(RECBOLE), help="some of %(default)s")
    parser.add_argument("--systems", default=",".join(("ours", *PEERS)), help="of %(default)s")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter of the peers")
    parser.add_argument(
        "--lightgcn-epochs", type=int, default=0, help="stop RecBole's LightGCN early; 0 = do not"
    )
    parser.add_argument(
        "--sasrec-epochs", type=int, default=3, help="of RecBole, minutes each; 0 = its default"
    )
    parser.add_argument(
        "--rectools-epochs", type=int, default=30, help="of RecTools' SASRec; 0 = its default"
    )
    parser.add_argument(
        "--implicit-epochs", type=int, default=0, help="of implicit's BPR; 0 = its default, 100"
    )
    args = parser.parse_args()
    models, systems = args.models.split(","), args.systems.split(",")
    if unknown := [*(set(models) - set(RECBOLE)), *(set(systems) - {"ours", *PEERS})]:
        parser.error(f"unknown: {', '.join(unknown)}")
    if args.data is None or not (args.data / "u.data").is_file():
        parser.error(f"--data {args.data}: no u.data there")
    report(models, measured(models, systems, args), args)


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the text above as it is, and the defaults."""


Runs = dict[str, dict[str, list[Found]]]
"""Model -> system -> its runs."""


def measured(models: list[str], systems: list[str], args: argparse.Namespace) -> Runs:
    """Run each model with each system that has it, `repeats` times, in turns."""
    limits = {
        ("recbole", "lightgcn"): args.lightgcn_epochs,
        ("recbole", "sasrec-ce"): args.sasrec_epochs,
        ("rectools", "sasrec-ce"): args.rectools_epochs,
        ("implicit", "bpr-mf"): args.implicit_epochs,
    }
    runs: Runs = {model: {} for model in models}
    for repeat in range(args.repeats):
        for model in models:
            for system in systems:
                if system != "ours" and model not in PEERS[system][1]:
                    continue
                if repeat and system not in runs[model]:
                    continue  # it failed before
                with tempfile.TemporaryDirectory() as folder:
                    if system != "ours":
                        write_peers_files(model, args.data, Path(folder))
                    data, epochs = str(args.data.resolve()), limits.get((system, model), 0)
                    job = Job(system, model, data, folder, args.threads, args.seed, epochs)
                    try:
                        found = run(job, args.peers_python)
                    except RuntimeError as error:
                        print(f"{system} {model} is left out: {error}", file=sys.stderr)
                        continue
                runs[model].setdefault(system, []).append(found)
                print(f"{model} {system}: {found.cpu:.2f} CPU s", file=sys.stderr)
    return runs


def write_peers_files(model: str, data: Path, folder: Path) -> None:
    """Write u.data, and the parts into which a model's config divides it, as RecBole reads them."""
    import yaml

    from mmrec_bench.config import ProtocolConfig
    from mmrec_bench.protocol import make_split
    from mmrec_plugins.datasets.movielens import MovieLens

    protocol = yaml.safe_load((CONFIGS / f"{model}.yaml").read_text(encoding="utf-8"))["protocol"]
    split = make_split(MovieLens(MovieLens.Config()).load(data), ProtocolConfig(**protocol))
    part_of = {
        (split.users.ids[user], split.catalog.items.ids[item]): part
        for part, cases in ((PARTS[1], split.validation), (PARTS[2], split.test))
        for user, item in zip(
            cases.queries.user[cases.targets.row_ids], cases.targets.values, strict=True
        )
    }
    lines = (data / "u.data").read_text(encoding="ascii").splitlines(keepends=True)
    rows: dict[str, list[str]] = {part: [] for part in PARTS}
    for line in lines:
        user, item, *_ = line.split("\t")
        rows[part_of.get((user, item), PARTS[0])].append(line)
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (folder / NAME).mkdir()
    for name, part in (("", lines), *((f".{part}", rows[part]) for part in PARTS)):
        path = folder / NAME / f"{NAME}{name}.inter"
        path.write_text(head + "".join(part), encoding="ascii")


def report(models: list[str], runs: Runs, args: argparse.Namespace) -> None:
    """Print medians, ratios to ours, and where a comparison does not hold."""
    print(
        f"MovieLens-100k, {args.threads} thread(s), medians of {args.repeats}; x = times ours\n"
        "Ours: settings chosen on validation for few epochs. RecBole: its defaults.\n"
        "Others: one fit without validation. All on the same split."
    )
    for model in models:
        systems = runs[model]
        print(f"\n{model:<11} CPU s          wall s         peak MB  HR@{K}   NDCG@{K}")
        base = systems.get("ours")
        for system, found in systems.items():
            cells = []
            for part in ("cpu", "wall"):
                value = statistics.median(getattr(one, part) for one in found)
                ratio = ""
                if base:
                    ours = statistics.median(getattr(one, part) for one in base)
                    ratio = f"{value / ours:.1f}x"
                cells.append(f"{value:7.2f} {ratio:>6}")
            peak = statistics.median(one.peak for one in found)
            quality = found[0].quality
            notes = [quality.note] if quality.note else []
            if base and system != "ours":
                gap = quality.ndcg / base[0].quality.ndcg - 1
                if abs(gap) > 0.05:
                    notes.append(f"not of equal quality: NDCG {gap:+.0%} beside ours")
            print(
                f"{system:<9} {cells[0]} {cells[1]}  {peak:7.0f}  {quality.hit_rate:.4f}"
                f"  {quality.ndcg:.4f}   {'; '.join(notes)}".rstrip()
            )


if __name__ == "__main__":
    main()
