"""Built-in trackers; the classes are imported on use, in the tracker's own process."""

from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Entry


@hookimpl
def mmrec_register_trackers() -> list[Entry]:
    """Register the built-in trackers."""
    return [
        Entry(
            "tensorboard",
            "mmrec_plugins.trackers.tensorboard:TensorBoard",
            "event files in a folder, for `tensorboard --logdir FOLDER`",
            extra="mmrec-bench[tensorboard]",
        ),
        Entry(
            "mlflow",
            "mmrec_plugins.trackers.mlflow:MLflow",
            "runs of an MLflow server or folder",
            extra="mmrec-bench[mlflow]",
        ),
    ]
