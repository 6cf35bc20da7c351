"""Where a network runs."""

import torch

from mmrec_bench.errors import ModelError


def pick_device(device: str) -> torch.device:
    """Return the device asked for; "auto" is CUDA where there is one, else the CPU.

    Raises:
        ModelError: not a device, or not on this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise ModelError(
            f"device {device!r} is not known; use auto, cpu, cuda or cuda:N"
        ) from error
    if target.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (target.index or 0) >= count:
            raise ModelError(f"device {device} is not here: torch sees {count} CUDA devices")
    return target
