"""The first CUDA kernel of deformable attention, one thread a channel (`original.cu`), as a baseline beside ours.

Works in float32, for 32 channels a head or whole multiples of that.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detrbench.models.ops import build, toolchain

SOURCE = Path(__file__).with_name("original.cu")


def attention(library: ctypes.CDLL, stream: Callable[[], int] = lambda: 0) -> Callable[..., Tensor]:
    """`ops.msda` by the kernels of a compiled `original.cu`, in float32; `stream` gives the stream to run on."""

    class Original(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Tensor) -> Tensor:
            value, shapes, starts, locations, weights = (tensor.contiguous() for tensor in arguments)
            ctx.save_for_backward(value, shapes, starts, locations, weights)
            output = value.new_empty(*locations.shape[:2], value.shape[2] * value.shape[3])
            given = (shapes, starts, value, locations, weights, output)
            library.original_forward(_sizes(value, locations), *map(_address, given), ctypes.c_void_p(stream()))
            return output

        @staticmethod
        def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
            value, shapes, starts, locations, weights = ctx.saved_tensors
            grads = torch.zeros_like(value), torch.empty_like(locations), torch.empty_like(weights)
            given = (shapes, starts, grad_outputs[0].contiguous(), value, locations, weights, *grads)
            library.original_backward(_sizes(value, locations), *map(_address, given), ctypes.c_void_p(stream()))
            return grads[0], None, None, grads[1], grads[2]

    return Original.apply


def on_this_gpu() -> Callable[..., Tensor]:
    """Compiled with nvcc for the device that torch uses. Ends the program where that cannot be."""
    home = toolchain.cuda_home()
    if home is None:
        sys.exit(f"no CUDA toolkit (nvcc) was found: {build.INSTALL_NVCC}")
    major, minor = torch.cuda.get_device_capability()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "original.so"
        nvcc = [str(home / "bin" / "nvcc"), "-O3", "-std=c++17", f"-arch=sm_{major}{minor}", "-shared"]
        done = subprocess.run(
            [*nvcc, "-Xcompiler", "-fPIC", str(SOURCE), "-o", str(made)], text=True, capture_output=True, check=False
        )
        if done.returncode:
            sys.exit(f"nvcc failed: {done.stderr.strip()}")
        library = ctypes.CDLL(str(made))
    return attention(library, lambda: int(torch.cuda.current_stream().cuda_stream))


def _sizes(value: Tensor, locations: Tensor) -> ctypes.Array[ctypes.c_int64]:
    """N, S, M, D, Q, L, P."""
    if value.dtype != torch.float32 or value.shape[3] % 32 or not 0 < value.shape[3] <= 1024:
        raise ValueError(f"expected float32 and whole warps of channels, got {value.dtype} and {value.shape[3]}")
    queries, levels, points = locations.shape[1], locations.shape[3], locations.shape[4]
    return (ctypes.c_int64 * 7)(*value.shape, queries, levels, points)


def _address(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
