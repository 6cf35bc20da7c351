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
            "efficientnet",
            "mmrec_plugins.encoders.efficientnet:EfficientNet",
            "vectors by EfficientNet-Lite0, weights packaged: colour, texture, ImageNet classes",
            extra="mmrec-bench[efficientnet]",
        ),
        Entry(
            "clip",
            "mmrec_plugins.encoders.hub_vision:Clip",
            "image embeddings by a CLIP model (hub id or folder an option); safetensors only",
        ),
        Entry(
            "siglip",
            "mmrec_plugins.encoders.hub_vision:Siglip",
            "image embeddings by a SigLIP model (hub id or folder an option); safetensors only",
        ),
        Entry(
            "minilm",
            "mmrec_plugins.encoders.minilm:MiniLM",
            "sentence vectors of the items' words by MiniLM, weights packaged, or a local folder",
            extra="mmrec-bench[minilm]",
        ),
        Entry(
            "features",
            "mmrec_plugins.encoders.features:Features",
            "vectors from a .npy file, one row an item; for items with no picture file as well",
        ),
        Entry(
            "blip",
            "mmrec_plugins.encoders.blip:Blip",
            "a caption of the picture by a BLIP model (hub id an option); for a GPU",
        ),
    ]
