"""How often work waits for its device, counted where there is none.

Tensors can be made to say that they lie on another device, while a CPU computes them. What would hold a CUDA stream up
is counted under the line of detrbench that asks for it: reading a value, copies to the host, copies to the device that
are not asynchronous, and operations whose result has a size that only the values tell. Mixing tensors of both places is
the error that CUDA makes of it. Asynchronous copies to the device are counted apart: they hold nobody up, yet no CUDA
graph can repeat them.

    detector = far(detector)
    with Waits() as waits:
        train_step(detector, ...)
    waits.total, waits.by_place
"""

from __future__ import annotations

import traceback
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import detrbench

# A device that every PyTorch knows by name and that no machine has.
DEVICE = torch.device("lazy", 0)
ROOT = Path(detrbench.__file__).resolve().parent.parent
# The size of what comes out, or a branch of the host, hangs on the values.
DATA_DEPENDENT = {
    "_local_scalar_dense",
    "_unique2",
    "bincount",
    "equal",
    "is_nonzero",
    "masked_select",
    "nms",
    "nonzero",
    "prod",  # its gradient asks how many zeros there are
    "repeat_interleave",
    "unique_consecutive",
    "unique_dim",
}
# With a value of the device, which is read for it.
FILLS = {"masked_fill", "masked_fill_"}
COPIES = {"_to_copy", "copy_"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
Moved = TypeVar("Moved", Tensor, nn.Module)


class Far(Tensor):
    """A tensor on the device; `near` is what it stands for, on the CPU."""

    near: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, near: Tensor) -> Far:
        made: Far = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            near.shape,
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=DEVICE,
        )
        made.near = near
        return made

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:  # as `nn.Parameter` does
            return Far(args[0].near)
        raise RuntimeError(f"{func}: a tensor of the device was used where nobody counts")


def far(moved: Moved) -> Moved:
    """A detached tensor, or a module with all it has, on the device."""
    if isinstance(moved, Tensor):
        return Far(moved.detach())
    for module in moved.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(Far(parameter.detach()), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else Far(buffer)
    return moved


class Waits(TorchDispatchMode):
    """Counts waits inside the block.

    Attributes:
        by_place: how often, by operation and the innermost line of detrbench.
        uploads: copies to the device, waited for or not, by that line.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_place: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """All of them."""
        return self.by_place.total()

    def __enter__(self) -> Self:
        torch._C._set_only_lift_cpu_tensors(True)  # else `torch.tensor(..., device=)` would look for the device
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch._C._set_only_lift_cpu_tensors(False)
        super().__exit__(kind, error, trace)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        leaves = tree_leaves((args, kwargs))
        here = any(isinstance(leaf, Far) for leaf in leaves)
        device = kwargs.get("device")
        there = here if device is None else torch.device(device).type == DEVICE.type
        if name == "copy_":
            there = isinstance(args[0], Far)
        if there and crosses(name, leaves, here, there):
            self.uploads[caller()] += 1
        if holds_up(name, leaves, here, there, bool(kwargs.get("non_blocking", False))):
            self.by_place[f"{name} at {caller()}"] += 1
        elif here and name not in COPIES:
            refuse_mixture(func, leaves)
        if device is not None:
            kwargs["device"] = torch.device("cpu")
        args, kwargs = tree_map_only(Far, lambda tensor: tensor.near, (args, kwargs))
        result = func(*args, **kwargs)
        return tree_map_only(Tensor, Far, result) if there else result


def holds_up(name: str, leaves: list[Any], here: bool, there: bool, asynchronous: bool) -> bool:
    """Whether a call waits.

    Args:
        name: of the operation.
        leaves: its arguments.
        here: an argument is on the device.
        there: the result is.
        asynchronous: the caller asked for a copy that nobody waits for.
    """
    if name in COPIES:
        return crosses(name, leaves, here, there) and not (there and asynchronous)
    if not here:
        return False
    if name in FILLS:
        return isinstance(leaves[2], Far)
    if name in INDEXING:
        return any(isinstance(leaf, Tensor) and (uploads(leaf) or leaf.dtype == torch.bool) for leaf in leaves[1:])
    return name in DATA_DEPENDENT


def crosses(name: str, leaves: list[Any], here: bool, there: bool) -> bool:
    """Whether a call is a copy from one side to the other; arguments as for `holds_up`."""
    if name == "copy_":
        return isinstance(leaves[0], Far) != isinstance(leaves[1], Far)
    return name in COPIES and here != there


def uploads(leaf: Any) -> bool:
    """A tensor of the host that is more than a number."""
    return isinstance(leaf, Tensor) and not isinstance(leaf, Far) and leaf.dim() > 0


def refuse_mixture(func: Any, leaves: list[Any]) -> None:
    if any(uploads(leaf) for leaf in leaves):
        raise RuntimeError(f"{func}: some tensors are on the device, others on the host")


def caller() -> str:
    """The innermost line of the project that is being run, this file aside."""
    for frame in reversed(traceback.extract_stack()):
        file = Path(frame.filename).resolve()
        if file.is_relative_to(ROOT) and file != Path(__file__).resolve() and ".venv" not in file.parts:
            return f"{file.relative_to(ROOT)}:{frame.lineno}"
    return "autograd"
