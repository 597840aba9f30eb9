"""How forwards are timed. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from detrbench.measures import COMMON, NATIVE

Mode = Literal["eager", "optimised", "compiled", "cuda_graph", "onnxruntime", "openvino"]
Precision = Literal["float32", "bfloat16"]
Sizes = Literal["fixed", "val2017", "native"]
MODES: dict[Mode, str] = {
    "eager": "eager",
    "optimised": "in the form for inference (norms folded, fused layers, packed weights)",
    "compiled": "torch.compile",
    "cuda_graph": "replayed from a CUDA graph",
    "onnxruntime": "exported as ONNX (opset 20, the op as GridSample) and run by ONNX Runtime",
    "openvino": "exported as ONNX (opset 20, the op as GridSample) and run by OpenVINO",
}
PRECISIONS: dict[Precision, str] = {
    "float32": "float32",
    "bfloat16": "bfloat16 under autocast (weights in float32)",
}
RUNTIMES: tuple[Mode, ...] = ("onnxruntime", "openvino")  # that run an exported file, named as their packages


@dataclass(frozen=True)
class LatencyProtocol:
    """Timed forwards: which input, how it is run, and how often.

    Args:
        batch_size: images in a forward.
        mode: how the detector runs: as it is, in the form for inference (`models.for_inference`), through
            `torch.compile`, replayed from a CUDA graph, or as an ONNX file (`models.export_onnx`) in ONNX Runtime or
            OpenVINO.
        precision: what PyTorch computes in, by autocast where that is not the weights' own type.
        window_seconds: None times single forwards (burst); else a sample is a window of that length in which forwards
            follow each other without waiting for the device (sustained), which is also how energy is read.
        sizes: one fixed height x width; those of the first 100 images of val2017, one after the other; or the size that
            a detector from elsewhere says is its own, and the fixed one for all others.
        rounds: in each process; a round times every variant once.
        processes: how many processes repeat it all.
        warmup_seconds: the least time to warm up each variant; it goes on until the time settles, at most 10 x longer.
    """

    name: str
    title: str
    height: int = 800
    width: int = 1066
    batch_size: int = 1
    mode: Mode = "eager"
    precision: Precision = "float32"
    window_seconds: float | None = None
    sizes: Sizes = "fixed"
    rounds: int = 30
    processes: int = 3
    warmup_seconds: float = 1.0
    seed: int = 0
    version: int = 2

    @property
    def fits_external(self) -> bool:
        """Whether a detector from elsewhere can be run so: forms for inference and for export are those of ours."""
        return self.mode not in ("optimised", *RUNTIMES)

    @property
    def as_it_is(self) -> bool:
        """Whether a detector runs as everything else runs it, which nothing keeps it from."""
        return self.mode == "eager" and self.precision == "float32"

    @property
    def convention(self) -> str:
        """The rule in words."""
        fixed = f"{self.height}x{self.width}"
        size = {
            "fixed": fixed,
            "val2017": "the sizes of val2017's first 100 images",
            "native": f"the detector's own size ({fixed} where it says none)",
        }[self.sizes]
        window = self.window_seconds
        sample = "single forwards" if window is None else f"windows of {window:g} s of forwards without pause"
        repeats = "one process" if self.processes == 1 else f"each of {self.processes} processes"
        return (
            f"forward only, {MODES[self.mode]}, eval and inference mode, {PRECISIONS[self.precision]}, batch "
            f"{self.batch_size} of {size} random images without padding; data loading and post-processing excluded; "
            f"{sample}; after warm-up, {self.rounds} rounds interleaved over the variants in shuffled order in "
            f"{repeats}; median"
        )

    def at(self, height: int, width: int, rounds: int | None = None) -> LatencyProtocol:
        """The quick form for a suite's smaller scales: that size, one process, short warm-up and windows."""
        window = self.window_seconds and min(self.window_seconds, 0.2)
        smaller = replace(self.of_photographs(height, width), window_seconds=window)
        return replace(smaller, rounds=rounds or min(self.rounds, 30), processes=1, warmup_seconds=0.1)

    def of_photographs(self, height: int, width: int) -> LatencyProtocol:
        """The same rule, as thorough, on images of that size; a detector's own stay its own."""
        sizes: Sizes = "native" if self.sizes == "native" else "fixed"
        return replace(self, height=height, width=width, sizes=sizes)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        LatencyProtocol(COMMON, "batch 1 at the papers' size"),
        LatencyProtocol(NATIVE, "batch 1 at the size that the detector says is its own", sizes="native"),
        LatencyProtocol("batch4", "batch 4, as the papers' batched inference", batch_size=4),
        LatencyProtocol("batch8", "batch 8", batch_size=8),
        LatencyProtocol("optimised", "batch 1 in the form for inference", mode="optimised"),
        LatencyProtocol("compiled", "batch 1 through torch.compile", mode="compiled"),
        LatencyProtocol("cuda_graph", "batch 1 replayed from a CUDA graph", mode="cuda_graph"),
        LatencyProtocol("cuda_graph_batch4", "batch 4 replayed from a CUDA graph", batch_size=4, mode="cuda_graph"),
        LatencyProtocol("bfloat16", "batch 1 in bfloat16", precision="bfloat16"),
        LatencyProtocol("bfloat16_batch4", "batch 4 in bfloat16", batch_size=4, precision="bfloat16"),
        LatencyProtocol(
            "bfloat16_cuda_graph",
            "batch 1 in bfloat16 replayed from a CUDA graph",
            mode="cuda_graph",
            precision="bfloat16",
        ),
        LatencyProtocol(
            "bfloat16_cuda_graph_batch4",
            "batch 4 in bfloat16 replayed from a CUDA graph",
            batch_size=4,
            mode="cuda_graph",
            precision="bfloat16",
        ),
        LatencyProtocol("onnxruntime", "batch 1 in ONNX Runtime", mode="onnxruntime"),
        LatencyProtocol("openvino", "batch 1 in OpenVINO", mode="openvino"),
        LatencyProtocol("sustained", "batch 1 without pause; energy", window_seconds=2.0, rounds=7),
        LatencyProtocol("val2017", "batch 1 at the sizes of val2017", sizes="val2017", rounds=100),
    )
}
