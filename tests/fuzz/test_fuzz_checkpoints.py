"""Files of weights: the very numbers that they hold, or refused with a line."""

from __future__ import annotations

import io
import json
import pickle
import struct
from typing import Any

import numpy as np
import torch
import wholes
from answers import Case, answer
from conftest import Fuzz
from hypothesis import strategies as st
from safetensors.torch import save as as_safetensors
from spoiling import damaged, nasty, spoiled

from detrbench.models.checkpoints import read

CONVERT = ("--model", wholes.MODEL, "--to", "out.safetensors", *wholes.small_model())


class _Runs:
    """Would run code where it is read as an object."""

    def __reduce__(self) -> Any:
        return open, ("ran", "w")


TENSORS = [
    lambda t: t.float().fill_(float("nan")),
    lambda t: t.double(),
    lambda t: t.half(),
    lambda t: t.to(torch.complex64),
    lambda t: t.to_sparse(),
    lambda t: t.to("meta"),
    lambda t: t[:0],
    lambda t: t[None],
    lambda t: t.flatten()[:1].expand(10**6),
    lambda t: t.requires_grad_(),
    lambda t: t.numpy(),
    lambda t: t.bool(),
    lambda t: t.tolist(),
    lambda t: None,
    lambda t: _Runs(),
]


def torch_file(content: Any, legacy: bool = False) -> bytes:
    """What `torch.save` writes."""
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=not legacy)
    return out.getvalue()


@st.composite
def states(draw: st.DrawFn) -> Any:
    """The state of a detector with some tensors replaced, missing or under other names, in one of the containers."""
    state: dict[Any, Any] = dict(wholes.weights())
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(sorted(map(str, state))))
        if name in state:
            tensor = state.pop(name)
            if isinstance(tensor, torch.Tensor) and draw(st.integers(0, 3)):
                name = draw(st.sampled_from([name, name, name, f"module.{name}", "", "x", 0, None]))
                state[name] = draw(st.sampled_from(TENSORS))(tensor.detach()) if draw(st.booleans()) else tensor
    wrap = draw(st.sampled_from([lambda s: s, lambda s: {"model": s, "epoch": 3}, lambda s: {"state_dict": s}, list]))
    return wrap(state)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """(name, content) of a file of weights."""
    kind = draw(st.sampled_from(["pth", "pth", "legacy", "safetensors", "header", "pkl", "object"]))
    if kind in ("safetensors", "header"):
        content = as_safetensors(wholes.weights())
        return "w.safetensors", draw(_header(content) if kind == "header" else damaged(content))
    if kind == "pkl":
        arrays = {name: tensor.numpy() for name, tensor in wholes.weights().items()}
        content = pickle.dumps({"model": {**arrays, "x": draw(nasty)}})
        return "w.pkl", draw(damaged(content) | st.just(content))
    if kind == "object":
        return draw(st.sampled_from(["w.pth", "w.pkl"])), pickle.dumps(_Runs())
    content = torch_file(draw(states()), kind == "legacy")
    return "w.pth", draw(st.just(content) | st.just(content) | damaged(content))


@st.composite
def _header(draw: st.DrawFn, content: bytes) -> bytes:
    """A safetensors file whose header says something else."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    chosen = {name: header[name] for name in sorted(header)[:3]}
    text = json.dumps(header | draw(spoiled({**chosen, "__metadata__": {"class_names": '["a"]'}}))).encode()
    said = draw(st.sampled_from([len(text), len(text), len(text) + 1, 0, 2**63, 2**64 - 1]))
    return struct.pack("<Q", said) + text + content[8 + length :]


def the_very_numbers(file: tuple[str, bytes]) -> None:
    """A file that is taken gives the detector what stands in it, and runs nothing."""
    name, content = file
    with answer(Case(("convert", name, *CONVERT), {name: content})) as found:
        assert not (found.folder / "ran").exists(), "code of the file was run"
        assert (found.folder / "out.safetensors").exists() == (found.code == 0)
        if found.code == 0:
            source, _ = read(found.folder / name)
            target, _ = read(found.folder / "out.safetensors")
            assert all(np.isfinite(tensor.numpy()).all() for tensor in target.values())
            for key, tensor in target.items():
                same = source.get(key)
                assert same is not None, f"{key} is not in the file"
                assert torch.equal(same.to(tensor.dtype), tensor), key


def test_checkpoints(fuzz: Fuzz) -> None:
    fuzz(files(), the_very_numbers)


def test_a_whole_file_is_taken() -> None:
    """The fuzzer begins with what is right."""
    with answer(Case(("convert", "w.pth", *CONVERT), {"w.pth": torch_file(wholes.weights())})) as found:
        assert found.code == 0, found.err
