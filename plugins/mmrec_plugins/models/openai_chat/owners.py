"""Who holds a claim, told so that another process can see whether it still lives."""

import os
import socket
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Owner:
    """A process.

    Attributes:
        host: machine, boot and process-number space; two owners of one host can see each other.
        pid: process number.
        started: when it started, in the kernel's ticks since boot: numbers are used again.
    """

    host: str
    pid: int
    started: int

    def lives(self, lease: float) -> bool:
        """Return whether the process runs; of another host, whether its lease (Unix s) holds."""
        if self.host != _host():
            return time.time() < lease
        return _started(self.pid) == self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.split('/')[0]}"


def this_process() -> Owner:
    """Return the owner that this process is; asked anew, since a fork is another."""
    pid = os.getpid()
    return Owner(_host(), pid, _started(pid) or 0)


@cache
def _host() -> str:
    boot = space = ""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8]
        space = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:
        pass  # without /proc, hosts are told apart by name alone
    return f"{socket.gethostname()}/{boot}/{space}"


def _started(pid: int) -> int | None:
    """Return when a process started, or None where there is none; a zombie counts as none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])
