"""The command line: one file a command, imported when it is called."""

import errno
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from mmrec_bench.errors import ConfigError, MMRecError, did_you_mean

COMMANDS = {
    "run": "run a model on a data set and write its record",
    "tune": "choose a model's options on validation",
    "ablate": "repeat a run without, with shuffled and with grey pictures",
    "evaluate": "measure stored predictions again, without the model",
    "sweep": "run models x data sets x seeds from files",
    "compare": "test whether differences between runs are real",
    "leaderboard": "turn records into a CSV table",
    "report": "write a site of all records that opens from disk",
    "list": "list registered data sets, builders, encoders, models or metrics",
    "plugins": "list plugins with versions, and the broken ones with reasons",
    "new-plugin": "write a new plugin: an installable distribution with its tests",
    "check-plugin": "check a plugin against the contract of its kind, and explain each failure",
    "show": "show the record of a run",
    "doctor": "say what this machine offers and where weights and data were looked for",
    "data": "fetch a data set from its publisher",
}
"""Command -> its line in --help; the module of the same name is imported when it is called."""


_STDOUT = "mmrec_bench.stdout"
"""Where the standard output is kept while `--json` sends all but the JSON to standard error."""


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the built-in commands in the order of use, then those of plugins."""
        return [*COMMANDS, *sorted(set(super().list_commands(ctx)) - set(COMMANDS))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name in COMMANDS:
            file = cmd_name.replace("list", "listing").replace("-", "_")
            module = import_module(f"mmrec_bench.cli.{file}")
            command: click.Command = module.command
            for option in command.params:
                if option.name == "as_json":
                    option.callback = _json_alone
            return command
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command when one is unknown."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            hint = did_you_mean(args[0], self.list_commands(ctx))
            raise click.UsageError(f"unknown command {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        rows = list(COMMANDS.items())
        for name in super().list_commands(ctx):
            command = super().get_command(ctx, name)
            if command is not None and name not in COMMANDS:
                rows.append((name, command.get_short_help_str()))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: mmrec-bench run --model chatglm2-ptv2 --dataset amazon",
)
@click.version_option(package_name="mmrec-bench")
@click.option(
    "--plugin",
    "plugin_files",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Load a one-file plugin; can be given again, also after the command. $MMREC_PLUGINS names "
    "files for every call.",
)
@click.option("--debug", is_flag=True, help="Print an error's traceback; also after the command.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no notices, only results.")
@click.pass_context
def cli(ctx: click.Context, plugin_files: tuple[Path, ...], debug: bool, quiet: bool) -> None:
    """Evaluate multimodal recommenders and language models under one protocol."""
    ctx.obj = {"debug": debug, "quiet": quiet}
    _set_up_output(quiet=quiet, debug=debug)
    if plugin_files:
        from mmrec_bench.plugins import installed, load_file, register_commands  # noqa: PLC0415

        for path in plugin_files:
            load_file(installed(), path)
        register_commands(installed(), cli)


def group_options_first(arguments: Sequence[str]) -> list[str]:
    """Move each `--plugin FILE`, and `--debug`, before the command, where the group reads them.

    Raises:
        ConfigError: no file behind the option.
    """
    front: list[str] = []
    rest: list[str] = []
    given = list(arguments)
    while given:
        word = given.pop(0)
        if word == "--":
            return [*front, *rest, word, *given]
        if word.startswith("--plugin=") or word == "--debug":
            front.append(word)
        elif word == "--plugin":
            if not given:
                raise ConfigError("--plugin needs the path of a Python file behind it")
            front += [word, given.pop(0)]
        else:
            rest.append(word)
    return [*front, *rest]


def _command_of(words: Sequence[str]) -> str:
    """Return the command among words whose `--plugin FILE` stand before it; "" = there is none."""
    for before, word in zip(("", *words), words, strict=False):
        if not word.startswith("-") and before != "--plugin":
            return word
    return ""


def _set_up_output(*, quiet: bool, debug: bool) -> None:
    from mmrec_bench.progress import Notices, set_mode  # noqa: PLC0415 - not needed by --help

    logging.basicConfig(
        format="%(message)s", level=logging.WARNING, handlers=[Notices()], force=True
    )
    level = logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO
    logging.getLogger("mmrec_bench").setLevel(level)
    set_mode("quiet" if quiet else None)


def _json_alone(ctx: click.Context, _: click.Parameter, as_json: bool) -> bool:
    """Keep stdout for the JSON where a program reads it: no live bars, and no plugin's prints."""
    from mmrec_bench.progress import set_mode  # noqa: PLC0415

    if as_json:
        set_mode("quiet" if ctx.obj and ctx.obj["quiet"] else None, live=False)
        ctx.meta[_STDOUT] = sys.stdout
        ctx.with_resource(redirect_stdout(sys.stderr))
    return as_json


def main() -> NoReturn:
    """Run the command line; errors made on purpose are one line and an exit code."""
    from mmrec_bench.guard import DISK_ERRORS  # noqa: PLC0415 - lets `import mmrec_bench.cli` be cheap
    from mmrec_bench.plugins import installed, register_commands  # noqa: PLC0415

    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    debug = "--debug" in sys.argv
    if debug:
        logging.getLogger("mmrec_bench").setLevel(logging.DEBUG)
    try:
        arguments = group_options_first(sys.argv[1:])
        if _command_of(arguments) == "check-plugin":
            from mmrec_bench.cli.apart import go_apart  # noqa: PLC0415 - for this command alone

            go_apart()
        register_commands(installed(), cli)
        cli.main(arguments, standalone_mode=True)
    except MMRecError as error:
        _fail(error, str(error), error.exit_code, debug=debug)
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader of our output went away, e.g. `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        words = {errno.EACCES: "read or write", errno.EROFS: "write"}
        words |= dict.fromkeys(DISK_ERRORS, "write")
        if error.errno not in words:
            raise
        file = error.filename or "a file"
        _fail(error, f"cannot {words[error.errno]} {file}: {error.strerror}", 1, debug=debug)
    sys.exit(0)


def _fail(error: BaseException, line: str, code: int, *, debug: bool) -> NoReturn:
    if debug:
        raise error
    click.echo(f"error: {line}", err=True)
    sys.exit(code)


def echo_json(value: Any) -> None:  # noqa: ANN401 - anything JSON can hold
    """Print a value as JSON on stdout."""
    import json  # noqa: PLC0415 - only for --json

    ctx = click.get_current_context(silent=True)
    file = ctx.meta.get(_STDOUT) if ctx is not None else None
    click.echo(json.dumps(value, indent=2, ensure_ascii=False), file=file)
