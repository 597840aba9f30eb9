"""GFLOPs and parameters of a detector, by part, under a named protocol."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from math import prod

import torch
from torch import nn

from detrbench.data.transforms import Stretch
from detrbench.errors import DetrbenchError, UsageError
from detrbench.external import remote
from detrbench.external.detector import Adapted, remark_of
from detrbench.measure import recorded
from detrbench.measure.counters import count, counts, noise
from detrbench.measure.inputs import Inputs, Size
from detrbench.measure.other_counters import by_fvcore, by_torch
from detrbench.measure.parts import modules_by_part
from detrbench.measure.protocols.complexity import ComplexityProtocol
from detrbench.measure.tally import OTHER, Tally
from detrbench.measures import NATIVE
from detrbench.results.records import Complexity, CrossCheck
from detrbench.worker import bounds

# Other counters need a real forward. This size is quick, and on four levels has tokens enough for DINO's 900 queries.
CROSS_CHECK_SIZE = (192, 256)
# What a forward chooses by its values (boxes that survive NMS, say) meta tensors cannot tell.
WITH_VALUES = "; work that depends on values as noise and seeded random weights make it"


def measure(
    create: Callable[..., nn.Module] | nn.Module, protocol: ComplexityProtocol, cross_check: bool = False
) -> Complexity:
    """Count one detector. Needs neither data nor weights; runs on the meta device, one forward for each distinct size.

    Args:
        create: called with the protocol's overrides as keyword arguments, gives a detector; or a detector itself
            (left as it is), which a protocol with overrides cannot use.
        protocol: input rule, counting rule and what runs.
        cross_check: also ask fvcore and torch's counter, on a small real forward on the CPU.

    Raises:
        UsageError: a detector was given, and the protocol asks for other options.
    """
    detector = _on_meta(create, protocol)
    protocol = _on_its_own(detector, protocol)
    weights, elsewhere = protocol.inputs.sizes(), remote.of(detector)
    if elsewhere is None:
        total, trainable, parameters_by_part = parameters(detector)
        detector, tallies, on_values = _counted(detector, create, protocol)
        parts: Mapping[str, str] = _part_names(detector)
    else:
        total, trainable, parameters_by_part = recorded.parameters(elsewhere)
        tallies, on_values = recorded.counts(elsewhere, list(weights))
        parts = elsewhere.part_names
    images = sum(weights.values())
    by_part: dict[str, float] = dict.fromkeys(parts.values(), 0.0)
    for size, tally in tallies.items():
        for part, gflops in tally.gflops_by_part(protocol.rule, parts).items():
            by_part[part] = by_part.get(part, 0.0) + gflops * weights[size] / images
    any_tally = next(iter(tallies.values()))
    return Complexity(
        protocol=protocol.name,
        protocol_version=protocol.version,
        convention=protocol.convention + remark_of(detector) + _of_values(tallies, on_values),
        gflops=sum(by_part.values()),
        gflops_by_part=by_part,
        params_millions=total,
        params_millions_trainable=trainable,
        params_millions_by_part=parameters_by_part,
        inputs=[
            {"height": height, "width": width, "weight": weight, "gflops": tallies[height, width].gflops(protocol.rule)}
            for (height, width), weight in weights.items()
        ],
        uncounted=any_tally.uncounted(protocol.rule),
        cross_check=_cross_check(_detector(create, protocol), protocol) if cross_check else {},
    )


def _counted(
    detector: nn.Module, create: Callable[..., nn.Module] | nn.Module, protocol: ComplexityProtocol
) -> tuple[nn.Module, dict[Size, Tally], bool]:
    """The detector that did the work, its work by size, and whether it ran on values.

    One from elsewhere that meta tensors do not survive is counted in a forward on the CPU.
    """
    sizes = protocol.inputs.sizes()
    try:
        return detector, counts(detector, sizes, protocol.outputs), False
    except Exception:  # values matter; a mistake of its own shows again
        if not isinstance(detector, Adapted):
            raise
    detector = _detector(create, protocol)
    return detector, counts(detector, sizes, protocol.outputs, noise), True


def _of_values(tallies: Mapping[Size, Tally], on_values: bool) -> str:
    """What the rule says of work that depends on values."""
    if on_values:
        return WITH_VALUES
    return bounds.REMARK if any(tally.calls[name] for tally in tallies.values() for name in bounds.OPERATORS) else ""


def _on_its_own(detector: nn.Module, protocol: ComplexityProtocol) -> ComplexityProtocol:
    """The protocol `native` is on images as large as a detector from elsewhere says; all others say it themselves."""
    if protocol.name != NATIVE or not isinstance(detector, Adapted):
        return protocol
    native = detector.external.native
    if isinstance(native, Stretch):
        return protocol.on(Inputs.single(native.height, native.width))
    return protocol.on(Inputs.first_100(shortest=native.shortest, longest=native.longest))


def _on_meta(create: Callable[..., nn.Module] | nn.Module, protocol: ComplexityProtocol) -> nn.Module:
    """The detector without weights, which take far longer to draw than all of its shapes to work out."""
    try:
        with torch.device("meta"):
            detector = _detector(create, protocol)
    except DetrbenchError:
        raise
    except Exception:  # a part that reads values when it is built; a mistake of its own shows again
        detector = _detector(create, protocol)
    return detector.to("meta")


def _detector(create: Callable[..., nn.Module] | nn.Module, protocol: ComplexityProtocol) -> nn.Module:
    """A detector of our own, in eval mode."""
    if not isinstance(create, nn.Module):
        return create(**protocol.overrides).eval()
    if protocol.overrides:
        raise UsageError(
            f"protocol {protocol.name!r} changes options of the detector ({', '.join(protocol.overrides)}), "
            "so it cannot count one that is built already"
        )
    return copy.deepcopy(create).cpu().eval()


def _part_names(detector: nn.Module) -> dict[str, str]:
    """Module name -> part name, in the order of `detector.parts`."""
    names = {id(module): name for name, module in detector.named_modules()}
    return {names[id(module)]: part for part, module in modules_by_part(detector)}


def _cross_check(real: nn.Module, protocol: ComplexityProtocol) -> dict[str, CrossCheck]:
    """Our count, fvcore's and torch's, of one and the same forward on the CPU."""
    real.requires_grad_(False)
    height, width = min([*protocol.inputs.sizes(), CROSS_CHECK_SIZE], key=prod)
    tally = count(real, height, width, protocol.outputs)
    checks = {
        f"detrbench ({protocol.rule.name})": CrossCheck(tally.gflops(protocol.rule), tally.uncounted(protocol.rule)),
        "fvcore": by_fvcore(real, height, width, protocol.outputs),
        "FlopCounterMode": by_torch(real, height, width, protocol.outputs, tally),
    }
    return {f"{counter} at {height}x{width}": check for counter, check in checks.items()}


def parameters(detector: nn.Module) -> tuple[float, float, dict[str, float]]:
    """Millions of parameters: all, those that train, and all by part. Shared tensors count once, where they come first;
    buffers (frozen batch norm) are not parameters.
    """
    seen: set[int] = set()
    by_part: dict[str, float] = {}
    for part, module in [*modules_by_part(detector), (OTHER, detector)]:
        new = {id(tensor): tensor.numel() for tensor in module.parameters() if id(tensor) not in seen}
        seen |= new.keys()
        if part != OTHER or new:
            by_part[part] = by_part.get(part, 0.0) + sum(new.values()) / 1e6
    trainable = sum(tensor.numel() for tensor in detector.parameters() if tensor.requires_grad)
    return sum(by_part.values()), trainable / 1e6, by_part
