"""A trained detector in the form that computes the same fastest.

What changes is how things are computed, not what: frozen norms are folded into the convolutions in front of them,
branches of convolutions become one, feature maps keep their channels together in memory, ReLU and residuals are part of
the product before them, linear layers and convolutions run on oneDNN with weights that are laid out for it once, and
what depends on the size of the images alone is kept for the next image of that size. Parts of others, and layers that
are not known here, stay as they are. Shapes: B images, S tokens, C channels.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d

from detrbench.models.backbones.resnet import ResNetBackbone
from detrbench.models.backbones.resnet_d import ResNetDBackbone
from detrbench.models.encoders.across_levels import RepBlock
from detrbench.models.encoders.token_fusion import FusionBlock
from detrbench.models.layers import MLP, FeedForward
from detrbench.models.neck import BatchNormNeck, ProjectionNeck, Pyramid
from detrbench.models.tokens import Tokens

Kind = TypeVar("Kind", bound=nn.Module)


def for_inference(detector: Kind) -> Kind:
    """A copy of the detector that gives the same outputs (to 1e-5 of the largest, in float32) in less time.

    It is for inference alone: in eval mode, without gradients, and its weights are no longer those of a checkpoint.

    Args:
        detector: with its weights, on the device that it is to run on. It stays as it is.
    """
    made = copy.deepcopy(detector).eval().requires_grad_(False)
    for module in list(made.modules()):
        _fold_norms(module)
    for module in list(made.modules()):
        _join_branches(module)
    for module in list(made.modules()):
        faster = _FASTER.get(type(module))
        if faster is not None and faster.can_stand_for(module):
            module.__class__ = faster  # the same parameters, another forward
    return made.to(memory_format=torch.channels_last)


# --- products on oneDNN -------------------------------------------------------------------------------------------


def _on_onednn(x: Tensor) -> bool:
    """Whether oneDNN computes a product of that; PyTorch leaves many to other libraries, most of them slower."""
    known = x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() > 0
    return known and torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


class _Faster(nn.Module):
    """A layer that takes another one's place, with its parameters."""

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        state.pop("_packed", None)  # no copy of it can be made
        return state

    @classmethod
    def can_stand_for(cls, module: Any) -> bool:
        """Whether it computes all that this one does."""
        return True


class Linear(_Faster, nn.Linear):
    """A linear layer; ReLU, or the sum with a residual, in the same pass."""

    _packed: Tensor | None = None

    def forward(self, x: Tensor, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        """(..., C_in), and (..., C_out) to add -> (..., C_out)."""
        if not _on_onednn(x):
            return _finished(F.linear(x, self.weight, self.bias), residual, relu)
        if self._packed is None:
            rows = x.numel() // x.shape[-1]
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)
        if residual is not None:
            return torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._packed, self.bias, "add")
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "relu" if relu else "none", [], "")


class Convolution(_Faster, nn.Conv2d):
    """A convolution; the sum with a residual and ReLU in the same pass."""

    relu = False  # whatever is asked for: the layer behind it was one
    _packed: Tensor | None = None

    @classmethod
    def can_stand_for(cls, module: Any) -> bool:
        """Padding is zeros, given as a number."""
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)

    def forward(self, x: Tensor, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        """(B, C_in, H, W), and (B, C_out, h, w) to add -> (B, C_out, h, w)."""
        if not _on_onednn(x):
            return _finished(super().forward(x), residual, relu or self.relu)
        places = (list(cast("tuple[int, ...]", each)) for each in (self.padding, self.stride, self.dilation))
        how = (*places, self.groups)
        if self._packed is None:
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *how, list(x.shape))
        then = "relu" if relu or self.relu else None
        if residual is not None:
            return torch.ops.mkldnn._convolution_pointwise.binary(
                x, residual, self._packed, self.bias, *how, "add", 1.0, then, [], None
            )
        return torch.ops.mkldnn._convolution_pointwise(x, self._packed, self.bias, *how, then or "none", [], "")


def _finished(product: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    if residual is not None:
        product = product + residual
    return product.relu_() if relu else product


# --- norms that are folded -----------------------------------------------------------------------------------------


def _fold_norms(module: nn.Module) -> None:
    """Folds the norms of one module into the convolutions in front of them, with the ReLU behind them."""
    if type(module).forward is nn.Sequential.forward:
        names = [name for name, _ in module.named_children()]
        for three in zip(names, names[1:], [*names[2:], ""]):
            _fold(module, *three)
    elif type(module) is ResNetBackbone:
        _fold(module.body, "conv1", "bn1", "relu")
    elif type(module) is ResNetDBackbone:
        _fold(module.body, "conv1.6", "bn1", "relu")  # the stem's last convolution
    elif type(module) in (BasicBlock, Bottleneck):
        for number in (1, 2, 3) if type(module) is Bottleneck else (1, 2):
            _fold(module, f"conv{number}", f"bn{number}")


def _join_branches(module: nn.Module) -> None:
    """A 3x3 and a 1x1 convolution side by side as one, if the norms behind both are folded (RepVGG)."""
    if not isinstance(module, RepBlock) or type(module) not in _JOINED:
        return
    if not all(type(each[1]) is nn.Identity for each in (module.wide, module.narrow)):
        return
    wide, narrow = (cast("nn.Conv2d", each[0]) for each in (module.wide, module.narrow))
    assert wide.bias is not None
    assert narrow.bias is not None
    wide.weight.add_(F.pad(narrow.weight, (1, 1, 1, 1)))
    wide.bias.add_(narrow.bias)
    module.__class__ = _JOINED[type(module)]
    del module.narrow


class JoinedBlock(RepBlock):
    """One convolution, which `wide` has become."""

    def branches(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.wide(x)


class JoinedFusionBlock(JoinedBlock, FusionBlock):
    """Likewise, with an attention of channels behind it."""


_JOINED: dict[type, type[RepBlock]] = {RepBlock: JoinedBlock, FusionBlock: JoinedFusionBlock}


def _fold(within: nn.Module, conv_name: str, norm_name: str, behind: str = "") -> None:
    """norm(conv(x)) as one convolution, if these are known; likewise a ReLU behind them."""
    conv, norm = (within.get_submodule(name) for name in (conv_name, norm_name))
    if type(conv) is not nn.Conv2d or type(norm) not in _NORMS or not Convolution.can_stand_for(conv):
        return
    if any(each is None for each in (norm.running_mean, norm.weight, norm.bias)):
        return
    _multiply(conv, norm)
    setattr(within, norm_name, nn.Identity())
    if behind and type(within.get_submodule(behind)) is nn.ReLU:
        conv.__class__ = Convolution
        cast("Convolution", conv).relu = True
        setattr(within, behind, nn.Identity())


def _multiply(conv: nn.Conv2d, norm: Any) -> None:
    """Gives a convolution a frozen norm's factors, in float64, so that they are rounded once."""
    mean, variance, scale, shift = (
        each.double() for each in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    factor = scale * (variance + norm.eps).rsqrt()
    bias = shift - mean * factor if conv.bias is None else shift + (conv.bias.double() - mean) * factor
    weight = conv.weight.double() * factor[:, None, None, None]
    for name, tensor in (("weight", weight), ("bias", bias)):
        setattr(conv, name, nn.Parameter(tensor.to(conv.weight.dtype), requires_grad=False))


class Block(_Faster, Bottleneck):
    """ResNet's bottleneck, whose norms are folded."""

    conv1: Convolution
    conv2: Convolution
    conv3: Convolution
    downsample: nn.Module | None

    @classmethod
    def can_stand_for(cls, module: Any) -> bool:
        """Norms that could not be folded are still there."""
        return all(type(norm) is nn.Identity for norm in (module.bn1, module.bn2, module.bn3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', h, w)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        inner = self.conv2(self.conv1(x, relu=True), relu=True)
        return self.conv3(inner, shortcut, relu=True)


class _ChannelsLast(_Faster):
    """The stages of a ResNet on images whose channels lie together."""

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> (B, C_l, H_l, W_l) of each stage, as the backbone's."""
        given = images.contiguous(memory_format=torch.channels_last)
        return cast("list[Tensor]", super().forward(given))  # the backbone's


class Body(_ChannelsLast, ResNetBackbone):
    """With a stem of one convolution."""


class BodyD(_ChannelsLast, ResNetDBackbone):
    """With a stem of three."""


# --- what the layers of encoder, decoder and heads share ------------------------------------------------------------


class FusedMLP(_Faster, MLP):
    """Linear layers with ReLU in the same pass."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C_in) -> (..., C_out)."""
        for layer in self.layers[:-1]:
            x = layer(x, relu=True)
        return self.layers[-1](x)


class FusedFeedForward(_Faster, FeedForward):
    """Two passes: a product with ReLU, and one with the residual."""

    @classmethod
    def can_stand_for(cls, module: Any) -> bool:
        """GELU is no part of a product."""
        return module.activation is F.relu

    def forward(self, x: Tensor) -> Tensor:
        """(N, Q, C) -> (N, Q, C)."""
        return self.norm(self.linear2(self.linear1(x, relu=True), residual=x))


# --- what depends on the size of the images alone -------------------------------------------------------------------


@dataclass
class PlacedTokens(Tokens):
    """Tokens that work out once what follows from where they are."""

    _known: dict[str, Any] = field(default_factory=dict, repr=False)

    def _once(self, name: str) -> Any:
        if name not in self._known:
            found = getattr(super(), name)
            self._known[name] = found() if callable(found) else found
        return self._known[name]

    @property
    def valid_ratios(self) -> Tensor:
        """(B, L, 2), as those of `Tokens`."""
        return cast("Tensor", self._once("valid_ratios"))

    def cell_centres(self) -> Tensor:
        """(B, S, 2)."""
        return cast("Tensor", self._once("cell_centres"))

    def encoder_reference_points(self) -> Tensor:
        """(B, S, L, 2)."""
        return cast("Tensor", self._once("encoder_reference_points"))

    def proposals(self) -> tuple[Tensor, Tensor]:
        """(B, S, 4) logits, (B, S) bool."""
        return cast("tuple[Tensor, Tensor]", self._once("proposals"))

    def without_finest(self, levels: int) -> Tokens:
        """The pyramid without its first levels, whose tokens are elsewhere."""
        return dataclasses.replace(super().without_finest(levels), _known={})  # type: ignore[call-arg]


class _Placing(_Faster, Pyramid):
    """Keeps the places of the tokens for the next images, where these are of the same size and without padding."""

    _placed: tuple[Any, PlacedTokens] | None = None

    def place(self, levels: list[Tensor], masks: Tensor | None, image_size: tuple[int, int]) -> Tokens:
        """Levels of (B, C, H_l, W_l) and a mask (B, H, W), as the neck's."""
        if masks is not None:
            return super().place(levels, masks, image_size)
        key = image_size, [(level.shape, level.device, level.dtype) for level in levels]
        if self._placed is None or self._placed[0] != key:
            tokens = super().place(levels, masks, image_size)
            self._placed = key, PlacedTokens(**vars(tokens))
        return dataclasses.replace(self._placed[1], features=self.flatten(levels))


class PlacingNeck(_Placing, ProjectionNeck):
    """With group norm."""


class PlacingBatchNormNeck(_Placing, BatchNormNeck):
    """With batch norm."""


_NORMS = (FrozenBatchNorm2d, nn.BatchNorm2d)
_FASTER: dict[type, type[Any]] = {
    nn.Linear: Linear,
    nn.Conv2d: Convolution,
    Bottleneck: Block,
    ResNetBackbone: Body,
    ResNetDBackbone: BodyD,
    MLP: FusedMLP,
    FeedForward: FusedFeedForward,
    ProjectionNeck: PlacingNeck,
    BatchNormNeck: PlacingBatchNormNeck,
}
