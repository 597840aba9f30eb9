"""What a part of each kind may ask and must give; `detector.build` holds every part to it, those of plug-ins included.

A part is a `torch.nn.Module`, made as `Class(dimensions, **options)` with the options that its entry in the catalogue
names. Parts of detrbench inherit from their contract, so that the type checker compares them; a plug-in need not.
Shapes: B images, S tokens, C channels, Q queries, K classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

from detrbench.errors import UsageError
from detrbench.models.criterion import LossTerm
from detrbench.models.parts import Part
from detrbench.models.proposals import ProposalHead
from detrbench.models.targets import Target
from detrbench.models.tokens import Decoded, Encoded, Outputs, Prediction, Queries, Tokens


class Backbone(Protocol):
    """Images to feature maps.

    Attributes:
        channels: of each level, fine to coarse.
    """

    channels: list[int]
    __call__: Callable[..., list[Tensor]]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> (B, channels[l], H_l, W_l) of each level."""
        ...


class Neck(Protocol):
    """Feature maps to the pyramid of tokens; it is made with the backbone's `in_channels` beside its options."""

    __call__: Callable[..., Tokens]

    def forward(self, features: list[Tensor], masks: Tensor | None, image_size: tuple[int, int]) -> Tokens:
        """The backbone's levels, (B, H, W) bool masks that are True on padding, (H, W) of the padded images."""
        ...


class Trains(Protocol):
    """A part that may bring terms of the training objective."""

    def loss_terms(self) -> list[LossTerm]:
        """What the criterion adds for this part; none unless it says so."""
        return []


class ReadsProposals(Trains, Protocol):
    """A part that may read the proposal head, which it shares with others.

    Attributes:
        needs_projection: it reads `ProposalHead.project`.
        needs_prediction: it reads the class and box heads behind the projection too.
    """

    needs_projection: bool = False
    needs_prediction: bool = False


class Encoder(ReadsProposals, Protocol):
    """Tokens to memory.

    One whose memory has fewer levels than the pyramid says so in the catalogue (`Part.memory_levels`), since the parts
    behind it are built for that number; so does one that takes tokens of another width (`Part.token_width`), for which
    the neck is built.
    """

    __call__: Callable[..., Encoded]

    def forward(self, tokens: Tokens, proposal_head: ProposalHead | None, outputs: Outputs) -> Encoded:
        """Encode; the proposal head is there if any part of the detector needs it."""
        ...


class QuerySelection(ReadsProposals, Protocol):
    """Memory to the decoder's queries."""

    __call__: Callable[..., Queries]

    def forward(
        self, encoded: Encoded, tokens: Tokens, proposal_head: ProposalHead | None, outputs: Outputs, further: int
    ) -> Queries:
        """`dimensions.num_queries` queries and, in some training, `further` ones behind them."""
        ...


class PlacesQueries(Protocol):
    """Query selection that denoising can be combined with."""

    def position_of(self, boxes: Tensor) -> Tensor | None:
        """(B, n, 4) boxes in [0, 1] -> (B, n, C) position of further queries there; None if the decoder makes it."""
        ...


class Heads(Protocol):
    """The decoder's states to predictions."""

    __call__: Callable[..., Prediction]

    def forward(self, layer: int, state: Tensor, reference_points: Tensor) -> Prediction:
        """(B, Q, C) of a layer, its references (B, Q, 2 or 4) -> (B, Q, K) classes, (B, Q, 4) boxes."""
        ...

    def boxes(self, layer: int, state: Tensor, reference_points: Tensor) -> Tensor:
        """The boxes alone, (B, Q, 4), which the decoder refines its references by."""
        ...

    def start_small(self) -> None:
        """Called once, when the detector is built, where no proposal gives the first boxes a size."""
        ...


class Decoder(Protocol):
    """Queries to states."""

    __call__: Callable[..., Decoded]

    def forward(
        self,
        queries: Queries,
        encoded: Encoded,
        tokens: Tokens,
        heads: Heads,
        outputs: Outputs,
        mixing_layers: int | None = None,
    ) -> Decoded:
        """Decode; only the first `mixing_layers` layers let queries attend to each other, all where it is None."""
        ...


class OneToMany(Trains, Protocol):
    """In training, further queries of which several answer for each object.

    Attributes:
        further_queries: how many.
    """

    further_queries: int
    __call__: Callable[..., Queries]

    def forward(self, queries: Queries) -> Queries:
        """Part the further queries from the ordinary ones."""
        ...


class Denoising(Trains, Protocol):
    """In training, noised objects in front of the queries."""

    __call__: Callable[..., Queries]

    def forward(self, queries: Queries, targets: list[Target], selection: PlacesQueries) -> Queries:
        """Put them there."""
        ...


class AuxiliaryDecoder(Trains, Protocol):
    """In training, a second prediction of each decoder layer."""

    __call__: Callable[..., list[Prediction] | None]

    def forward(
        self,
        decoder: Decoder,
        queries: Queries,
        encoded: Encoded,
        tokens: Tokens,
        heads: Heads,
        outputs: Outputs,
        decoded: Decoded,
    ) -> list[Prediction] | None:
        """What each layer predicts a second time, of another run of the decoder or of the one that was."""
        ...


CONTRACTS: dict[str, type] = {
    "backbone": Backbone,
    "neck": Neck,
    "encoder": Encoder,
    "queries": QuerySelection,
    "decoder": Decoder,
    "heads": Heads,
    "one_to_many": OneToMany,
    "denoising": Denoising,
    "auxiliary_decoder": AuxiliaryDecoder,
}


def check_contract(entry: Part, part: Any) -> None:
    """Refuse a part that a detector could not run.

    Args:
        entry: of the catalogue.
        part: made from it, not yet run.

    Raises:
        UsageError: no module, or an attribute, a method or an argument of its contract is missing.
    """
    contract, name = CONTRACTS[entry.kind], f"{entry.kind} {entry.name!r}"
    hint = f"a part of this kind keeps the contract `{contract.__name__}` of detrbench.models.contracts"
    if not isinstance(part, nn.Module):
        raise UsageError(f"{name}: made a {type(part).__name__}, which is no torch.nn.Module", hint=hint)
    for member in members(contract):
        if not hasattr(part, member):
            raise UsageError(f"{name}: {type(part).__name__} has no `{member}`", hint=hint)
        asked = getattr(contract, member, None)
        if inspect.isfunction(asked):
            parameters = list(inspect.signature(asked).parameters.values())[1:]
            arguments = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
            try:
                inspect.signature(getattr(part, member)).bind(*arguments)
            except TypeError as error:
                given = f"{type(part).__name__}.{member}"
                raise UsageError(
                    f"{name}: {given} does not take ({', '.join(arguments)}): {error}", hint=hint
                ) from error


def members(contract: type) -> list[str]:
    """The public attributes and methods that a contract asks for, sorted."""
    found: set[str] = set()
    for base in contract.__mro__:
        if getattr(base, "_is_protocol", False) and base is not Protocol:
            found |= set(vars(base)) | set(vars(base).get("__annotations__", {}))
    return sorted(name for name in found if not name.startswith("_"))
