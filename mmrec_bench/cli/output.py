"""Standard output: kept for what a command prints, whatever plugins do to it."""

import json
import os
import sys
from contextlib import redirect_stdout, suppress
from io import TextIOWrapper
from typing import Any, TextIO, cast

import click

from mmrec_bench import guard

_STDOUT = "mmrec_bench.stdout"
"""Where the standard output is kept while `--json` sends all but the JSON to standard error."""


class _Kept(TextIOWrapper):
    """A stream on a descriptor of its own that no one closes."""

    def close(self) -> None:
        """Write out what is held back, and stay open: this is not the plugin's to close."""
        if not self.closed:
            self.flush()


def keep_streams() -> None:
    """Put streams that cannot be closed in the place of standard output and error.

    A plugin that closes `sys.stdout`, or descriptor 1, no longer takes the command's own words
    with it; `guard` puts back what it replaces.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed from the start: no other file may get its number
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - until the end
    with suppress(OSError, ValueError):  # no file
        guard.keep_descriptor(sys.stdin.fileno(), os.dup(sys.stdin.fileno()))
    sys.stdout = _kept(sys.stdout)
    sys.stderr = _kept(sys.stderr)


def _kept(stream: TextIO) -> TextIO:
    try:
        number = os.dup(stream.fileno())
    except (OSError, ValueError):  # no file
        return stream
    guard.keep_descriptor(stream.fileno(), number)
    old = cast("TextIOWrapper", stream)
    old.flush()
    return _Kept(
        os.fdopen(number, "wb", 0 if old.write_through else -1, closefd=False),
        encoding=old.encoding,
        errors=old.errors,
        line_buffering=old.line_buffering,
        write_through=old.write_through,
    )


def json_alone(ctx: click.Context, _: click.Parameter, as_json: bool) -> bool:
    """Keep stdout for the JSON where a program reads it: no live bars, and no plugin's prints."""
    from mmrec_bench.progress import set_mode  # noqa: PLC0415

    if as_json:
        set_mode("quiet" if ctx.obj and ctx.obj["quiet"] else None, live=False)
        ctx.meta[_STDOUT] = sys.stdout
        ctx.with_resource(redirect_stdout(sys.stderr))
    return as_json


def echo_json(value: Any) -> None:  # noqa: ANN401 - anything JSON can hold
    """Print a value as JSON on stdout."""
    ctx = click.get_current_context(silent=True)
    file = ctx.meta.get(_STDOUT) if ctx is not None else None
    click.echo(json.dumps(value, indent=2, ensure_ascii=False), file=file)
