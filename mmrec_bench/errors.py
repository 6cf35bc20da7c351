"""Errors a user can act on.

Each message says what was found, what was expected and what to do. The command line prints the one
line and exits with `exit_code`; `--debug` prints the traceback as well.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class MMRecError(Exception):
    """Base of every error that mmrec-bench raises on purpose."""

    exit_code = 1


class ConfigError(MMRecError):
    """An option, a configuration file or a combination of options cannot be used."""

    exit_code = 2


class UnknownNameError(ConfigError):
    """A name is not registered; the message lists what is known and the nearest."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        super().__init__(f"unknown {kind} {name!r}{did_you_mean(name, self.known)}")


class PluginError(MMRecError):
    """A plugin could not be imported, registered or used; names its distribution."""


class DataMissingError(MMRecError):
    """Files of a data set are not there; says where to get them and where to put them."""


class DataFormatError(MMRecError):
    """A file was read but does not hold what its format promises."""


class ProtocolError(MMRecError):
    """A data set cannot be evaluated under the protocol that was asked for."""


class ModelError(MMRecError):
    """A backbone, a checkpoint or an adapter cannot be used."""


class StorageError(MMRecError):
    """Results cannot be written or read back: full disk, torn file, another spec, a lock."""


_MOST = 60
"""Known names that a message lists; of more it lists the nearest few."""
_FEW = 10


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...? known: ...` for an unknown name, to append to a message."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    left = ""
    if len(names) > _MOST:  # runs, say, of which a folder holds hundreds
        left = f" and {len(names) - _FEW} more"
        names = sorted(get_close_matches(name, names, n=_FEW, cutoff=0.0))
    return f"{hint} (known: {', '.join(names) or 'none'}{left})"
