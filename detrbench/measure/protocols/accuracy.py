"""How detections are made and scored. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from detrbench.measures import COMMON


@dataclass(frozen=True)
class AccuracyProtocol:
    """How detections are made and scored: `top` scores over queries x classes, NMS at that IoU or None."""

    name: str
    title: str
    top: int
    nms: float | None = None
    max_detections: int = 100  # of one class in one image, in the scoring
    version: int = 2

    @property
    def reads_kept(self) -> bool:
        """Whether the detections that are kept, those of `common`, hold all that this protocol scores."""
        return self.nms is None and self.top <= PROTOCOLS[COMMON].top

    @property
    def fits_external(self) -> bool:
        """Whether it holds for detections as a detector from elsewhere gives them; NMS would choose among all boxes."""
        return self.nms is None

    @property
    def convention(self) -> str:
        """The rule in words."""
        kept = f"top {self.top} scores over queries x classes"
        kept = f"{kept}, no NMS" if self.nms is None else f"NMS within each class at IoU {self.nms}, then the {kept}"
        return f"COCO box AP (pycocotools), {kept}, maxDets {self.max_detections}"

    @property
    def convention_elsewhere(self) -> str:
        """The rule in words for a detector from elsewhere, which has its own way from outputs to detections."""
        return (
            f"COCO box AP (pycocotools), of the detections that the detector itself gives of images of its own size, "
            f"the best {self.top} of an image, maxDets {self.max_detections}"
        )


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        AccuracyProtocol(COMMON, "the same for every method", 300),
        AccuracyProtocol("paper_top100", "Deformable DETR, Sparse DETR", 100),
        AccuracyProtocol("paper_top300", "DINO, Focus-DETR, Lite DETR", 300),
        AccuracyProtocol("dac", "DAC-DETR's official evaluation", 300, nms=0.8),
    )
}
