"""Built-in encoders of pictures and text; the classes are imported on use."""

from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Entry


@hookimpl
def mmrec_register_encoders() -> list[Entry]:
    """Register the built-in encoders."""
    return [
        Entry(
            "image-tags",
            "mmrec_plugins.encoders.image_tags:ImageTags",
            "colour, shape and pattern of the picture as words; ImageNet labels as an option",
            extra="mmrec-bench[efficientnet]",
        ),
        Entry(
            "blip",
            "mmrec_plugins.encoders.blip:Blip",
            "a caption of the picture by a BLIP model (hub id an option); for a GPU",
        ),
    ]
