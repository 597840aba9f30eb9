"""The detectors of Hugging Face transformers: whatever its `AutoModelForObjectDetection` builds."""

from __future__ import annotations

import contextlib
import inspect
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import transformers
from torch import nn

from detrbench.data.coco_names import CATEGORIES
from detrbench.data.transforms import Eval, Stretch
from detrbench.errors import CheckpointError, UsageError
from detrbench.external import sources
from detrbench.external.detector import TOP, ExternalDetector
from detrbench.external.sources import CONFIGURATION, Source
from detrbench.models import checkpoints
from detrbench.models.detections import Detections

# Where its detectors have what a part of ours does; a detector has those of these modules that it has.
_PARTS = {
    "model.backbone": "backbone",
    "model.encoder_input_proj": "neck",
    "model.decoder_input_proj": "neck",
    "model.input_proj": "neck",
    "model.input_projection": "neck",
    "model.encoder": "encoder",
    "model.enc_output": "queries",
    "model.enc_score_head": "queries",
    "model.enc_bbox_head": "queries",
    "model.decoder": "decoder",
    "class_embed": "heads",
    "bbox_embed": "heads",
    "class_labels_classifier": "heads",
    "bbox_predictor": "heads",
}
# Types for which transformers knows no processor, with the one that their published repositories name.
_PROCESSORS = {"rt_detr_v2": "RTDetrImageProcessor", "d_fine": "RTDetrImageProcessor"}
# Types that take a pyramid apart and put it together again, by two each time.
_MULTIPLES = {"rt_detr": 32, "rt_detr_v2": 32, "d_fine": 32, "deimv2": 32}


def build(source: Source, options: dict[str, Any]) -> ExternalDetector:
    """A detector with random weights; options change its configuration.

    Raises:
        UsageError: no such type, or no detector.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = _folder(source, Path(temporary))
        config, unused = transformers.AutoConfig.from_pretrained(folder, return_unused_kwargs=True, **options)
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
    if unused:
        raise UsageError(f"{source.text}: its configuration has no {', '.join(sorted(unused))}")
    module = transformers.AutoModelForObjectDetection.from_config(config)
    return ExternalDetector(
        module,
        parts=_parts(module),
        native=_native(source, processor),
        multiple=_MULTIPLES.get(config.model_type, 1),
        detections=_detections(processor),
        category_ids=_category_ids(config.id2label),
        load_weights=_load_weights,
    )


def _parts(module: nn.Module) -> dict[str, str]:
    """Its modules by part; heads that are the decoder's own are part of the decoder, which runs them."""
    found = dict(module.named_modules())
    inside = {id(each) for name, each in found.items() if name.startswith("model.decoder.")}
    return {name: part for name, part in _PARTS.items() if name in found and id(found[name]) not in inside}


def _folder(source: Source, temporary: Path) -> Path:
    """A folder with the files that say what the detector is: the repository's, or those of a type's defaults."""
    if source.kind == "hub":
        return sources.configuration(source)[0].parent
    if source.name not in transformers.CONFIG_MAPPING:
        raise UsageError(f"{source.text}: transformers {transformers.__version__} has no model type {source.name!r}")
    configuration, preprocessing = (temporary / name for name in CONFIGURATION)
    configuration.write_text(json.dumps({"model_type": source.name}))
    processor = _PROCESSORS.get(source.name)
    preprocessing.write_text(json.dumps({"image_processor_type": processor} if processor else {}))
    return temporary


def _native(source: Source, processor: Any) -> Eval | Stretch:
    """The size and the normalisation of its image processor; a pixel is scaled to [0, 1] before."""
    normalises, size = processor.do_normalize, processor.size
    mean = tuple(processor.image_mean) if normalises else (0.0, 0.0, 0.0)
    std = tuple(processor.image_std) if normalises else (1.0, 1.0, 1.0)
    if size.height and size.width:
        return Stretch(size.height, size.width, mean, std)
    if size.shortest_edge:
        return Eval(size.shortest_edge, size.longest_edge, mean, std)
    raise UsageError(f"{source.text}: expected an image processor with height and width, or shortest_edge, got {size}")


def _detections(processor: Any) -> Callable[[Any, tuple[int, int]], list[Detections]]:
    """Its processor's own way from outputs to boxes, without a threshold."""
    takes = inspect.signature(processor.post_process_object_detection).parameters
    most = {"top_k": TOP} if "top_k" in takes else {}

    def found(out: Any, size: tuple[int, int]) -> list[Detections]:
        sizes = [size] * len(out.logits)
        each = processor.post_process_object_detection(out, threshold=0.0, target_sizes=sizes, **most)
        return [Detections(image["scores"], image["labels"], image["boxes"]) for image in each]

    return found


def _category_ids(names: Mapping[int, str]) -> dict[int, int] | None:
    """COCO's category ids by label, where its labels have the names of COCO's categories."""
    ids = {name: number for number, name in CATEGORIES.items()}
    found = {int(label): ids[name] for label, name in names.items() if name in ids}
    return found if len(found) == len(ids) else None


def _load_weights(module: nn.Module, path: Path) -> None:
    """Fills it from a published file, whose names may be those of an earlier version, or from a `state_dict()`.

    Raises:
        CheckpointError: the file cannot be read, or has other names or shapes.
    """
    model: Any = module
    state, _ = checkpoints.read(path)
    how: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # all differences at once
    with _quietly():
        loaded, told = type(model).from_pretrained(None, config=model.config, state_dict=state, **how)
    wrong = {kind: sorted(map(str, told.get(f"{kind}_keys") or ())) for kind in ("missing", "unexpected", "mismatched")}
    if any(wrong.values()):
        words = "; ".join(f"{len(names)} {kind}: {names[0]}, ..." for kind, names in wrong.items() if names)
        raise CheckpointError(f"{path}: weights of another {type(model).__name__}: {words}")
    model.load_state_dict(loaded.state_dict())


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without its own report of what differs, and without its bars."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
