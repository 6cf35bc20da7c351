"""The command line: one file a command, imported when it is called."""

import errno
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from mmrec_bench.cli.group import LazyGroup
from mmrec_bench.cli.output import keep_streams
from mmrec_bench.errors import ConfigError, MMRecError
from mmrec_bench.guard import DISK_ERRORS


def _load_files(ctx: click.Context, _: click.Parameter, paths: tuple[Path, ...]) -> None:
    """Load one-file plugins while options are read: their commands are looked up behind them."""
    from mmrec_bench.plugins import installed, load_file, register_commands  # noqa: PLC0415

    for path in paths:
        load_file(installed(), path)
    if paths and isinstance(ctx.command, click.Group):
        register_commands(installed(), ctx.command)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: mmrec-bench run --model chatglm2-ptv2 --dataset amazon",
)
@click.version_option(package_name="mmrec-bench")
@click.option(
    "--plugin",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    callback=_load_files,
    is_eager=True,  # before --help, which lists their commands
    expose_value=False,
    help="Load a one-file plugin; can be given again, also after the command. $MMREC_PLUGINS names "
    "files for every call.",
)
@click.option("--debug", is_flag=True, help="Print an error's traceback; also after the command.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no notices, only results.")
@click.pass_context
def cli(ctx: click.Context, debug: bool, quiet: bool) -> None:
    """Evaluate multimodal recommenders and language models under one protocol."""
    ctx.obj = {"debug": debug, "quiet": quiet}
    _set_up_output(quiet=quiet, debug=debug)


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


def main() -> NoReturn:
    """Run the command line; errors made on purpose are one line and an exit code."""
    from mmrec_bench.plugins import installed, register_commands  # noqa: PLC0415

    keep_streams()
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
