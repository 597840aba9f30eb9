"""The detector: a choice of parts, run in order.

backbone -> neck -> encoder -> queries -> decoder -> heads; in training, one_to_many and denoising stand between queries
and decoder, and an auxiliary decoder beside it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from detrbench.errors import UsageError, unknown_name
from detrbench.models.auxiliary import ProposalLoss
from detrbench.models.catalogue import CRITERION
from detrbench.models.contracts import (
    AuxiliaryDecoder,
    Backbone,
    Decoder,
    Denoising,
    Encoder,
    Heads,
    Neck,
    OneToMany,
    QuerySelection,
    check_contract,
)
from detrbench.models.criterion import Criterion, DecoderLoss
from detrbench.models.dimensions import Dimensions
from detrbench.models.heads import predictions
from detrbench.models.parts import KINDS, TRAINING_KINDS, get_part
from detrbench.models.proposals import ProposalHead
from detrbench.models.spec import DetectorSpec
from detrbench.models.targets import Target
from detrbench.models.tokens import Decoded, Encoded, Outputs, Prediction, Queries, Tokens
from detrbench.models.trace import Recorder, Trace, trace_of


@dataclass
class Branch:
    """Predictions of one run of the decoder by layer, for each group of queries: ordinary, noised, one-to-many."""

    layers: list[Prediction]
    noised: list[Prediction]
    one_to_many: list[Prediction]

    @classmethod
    def of(cls, layers: list[Prediction], queries: Queries) -> Branch:
        """The groups of the queries that the layers were run with."""
        ordinary = queries.ordinary
        return cls(
            layers=[layer.of(ordinary) for layer in layers],
            noised=[layer.of(slice(0, ordinary.start)) for layer in layers] if queries.noised else [],
            one_to_many=[layer.of(slice(ordinary.stop, None)) for layer in layers] if queries.one_to_many else [],
        )


@dataclass
class DetectorOutput:
    """Predictions of a batch.

    Attributes:
        layers: predictions by decoder layer; the last is the detector's. Only that one in inference.
        tokens: the pyramid, for losses that need its geometry.
        encoded: memory, scores, auxiliary predictions.
        queries: with the proposal head's prediction.
        decoded: states and sampling.
        noised: predictions of the noised queries by decoder layer; none but in training with denoising.
        one_to_many: predictions of the one-to-many queries by decoder layer; none but in training with those.
        auxiliary: predictions of the auxiliary decoder; none but in training with one.
        trace: only where asked for.
    """

    layers: list[Prediction]
    tokens: Tokens
    encoded: Encoded
    queries: Queries
    decoded: Decoded
    noised: list[Prediction] = field(default_factory=list)
    one_to_many: list[Prediction] = field(default_factory=list)
    auxiliary: Branch | None = None
    trace: Trace | None = field(default=None, repr=False)

    @property
    def pred_logits(self) -> Tensor:
        """(B, Q, K) class logits of the last layer."""
        return self.layers[-1].logits

    @property
    def pred_boxes(self) -> Tensor:
        """(B, Q, 4) cx, cy, w, h in [0, 1] of the valid image area, of the last layer."""
        return self.layers[-1].boxes


class Detector(nn.Module):
    """A DETR-like detector; `build` makes it from a description."""

    def __init__(
        self,
        spec: DetectorSpec,
        backbone: Backbone,
        neck: Neck,
        encoder: Encoder,
        queries: QuerySelection,
        decoder: Decoder,
        heads: Heads,
        one_to_many: OneToMany,
        denoising: Denoising,
        auxiliary_decoder: AuxiliaryDecoder,
        proposal_head: ProposalHead | None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.backbone, self.neck, self.encoder = backbone, neck, encoder
        self.queries, self.decoder, self.heads = queries, decoder, heads
        self.one_to_many, self.denoising, self.auxiliary_decoder = one_to_many, denoising, auxiliary_decoder
        # Shared by the encoder and query selection, so it belongs to neither.
        self.proposal_head = proposal_head
        # An encoder may read class logits that no query selection trains; then the detector does.
        self.trains_proposals = encoder.needs_prediction and not queries.needs_prediction
        training = (queries, encoder, one_to_many, denoising, auxiliary_decoder)
        terms = [DecoderLoss(), *(term for part in training for term in part.loss_terms())]
        if self.trains_proposals:
            terms.append(ProposalLoss(class_agnostic=False))
        self.criterion = Criterion(terms, **{name: spec.options[name] for name in CRITERION})

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The parts by kind that inference runs, in their order."""
        return {kind: getattr(self, kind) for kind in KINDS}

    def forward(
        self,
        images: Tensor,
        masks: Tensor | None = None,
        *,
        targets: list[Target] | None = None,
        trace: bool = False,
        outputs: Outputs | None = None,
    ) -> DetectorOutput:
        """Detect objects.

        Args:
            images: (B, 3, H, W), ImageNet-normalised, zero where padded.
            masks: (B, H, W) bool, True on padding; None where there is none.
            targets: the objects, as the criterion takes them, for the parts that train on them inside the detector
                (one_to_many, denoising, auxiliary_decoder); None runs without those parts.
            trace: keep what measurements and pictures read.
            outputs: "final" runs only what inference needs (the default in eval mode), "all" every auxiliary
                prediction (the default in training).
        """
        check_input(images, masks, outputs)
        outputs = outputs or ("all" if self.training else "final")
        tokens = self.neck(self.backbone(images), masks, images.shape[-2:])
        recorder = Recorder()
        with recorder.watching(self.get_submodule("encoder")) if trace else contextlib.nullcontext():
            encoded = self.encoder(tokens, self.proposal_head, outputs)
        tokens = encoded.tokens or tokens
        further = self.one_to_many.further_queries if targets is not None else 0
        queries = self.queries(encoded, tokens, self.proposal_head, outputs, further)
        if outputs == "all" and self.trains_proposals and self.proposal_head is not None:
            queries.proposals = self.proposal_head.predict(encoded.memory, tokens)
        if targets is not None:
            queries = self.one_to_many(queries)
            queries = self.denoising(queries, targets, self.queries)
        decoded = self.decoder(queries, encoded, tokens, self.heads, outputs)
        branch = Branch.of(predictions(decoded, self.heads), queries)
        ordinary = decoded.of(queries.ordinary)
        out = DetectorOutput(branch.layers, tokens, encoded, queries, ordinary, branch.noised, branch.one_to_many)
        if targets is not None:
            again = self.auxiliary_decoder(self.decoder, queries, encoded, tokens, self.heads, outputs, decoded)
            out.auxiliary = None if again is None else Branch.of(again, queries)
        if trace:
            out.trace = trace_of(out, recorder)
        return out

    def without_self_attention(self, out: DetectorOutput) -> list[Prediction]:
        """What each decoder layer says of the same queries where no layer lets them attend to each other.

        Args:
            out: of this detector, in inference.
        """
        decoded = self.decoder(out.queries, out.encoded, out.tokens, self.heads, "all", mixing_layers=0)
        return Branch.of(predictions(decoded, self.heads), out.queries).layers


def build(spec: DetectorSpec) -> Detector:
    """A detector with random weights from a resolved description.

    Raises:
        UsageError: a part does not keep the contract of its kind.
    """
    dimensions = Dimensions(**spec.common, further_queries=spec.options.get("one_to_many_queries", 0))

    def part(kind: str, dimensions: Dimensions, **given: object) -> Any:
        entry = get_part(kind, spec.parts[kind])
        made = entry.load()(dimensions, **spec.options_of(kind), **given)
        check_contract(entry, made)
        return made

    backbone = part("backbone", dimensions)
    between = get_part("encoder", spec.parts["encoder"])
    tokens = replace(dimensions, hidden_dim=between.token_width(spec.options))  # what stands before the encoder
    neck = part("neck", tokens, in_channels=backbone.channels)
    encoder = part("encoder", dimensions)
    # What the parts behind the encoder look at.
    dimensions = replace(dimensions, num_levels=between.memory_levels(spec.options))
    queries, decoder, heads = (part(kind, dimensions) for kind in ("queries", "decoder", "heads"))
    one_to_many, denoising, auxiliary_decoder = (part(kind, dimensions) for kind in TRAINING_KINDS)
    predicts = queries.needs_prediction or encoder.needs_prediction
    proposal_head = ProposalHead(dimensions, predicts) if predicts or encoder.needs_projection else None
    detector = Detector(
        spec,
        backbone,
        neck,
        encoder,
        queries,
        decoder,
        heads,
        one_to_many,
        denoising,
        auxiliary_decoder,
        proposal_head,
    )
    begin_alike(detector)
    if not queries.needs_prediction:
        heads.start_small()
    return detector


def begin_alike(detector: nn.Module) -> None:
    """Every class head begins with the same weights, and every box head: the official code copies one of each."""
    for kind in ("class_embed", "box_embed"):
        found = [getattr(module, kind) for module in detector.modules() if hasattr(module, kind)]
        first, *others = [head for each in found for head in (each if isinstance(each, nn.ModuleList) else [each])]
        for head in others:
            head.load_state_dict(first.state_dict())


def check_input(images: Tensor, masks: Tensor | None, outputs: str | None) -> None:
    """Refuse what would otherwise fail deep inside, or worse, run; arguments as for `Detector.forward`."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise UsageError(f"images: expected float (B, 3, H, W), got {images.dtype} {tuple(images.shape)}")
    if masks is not None and (masks.dtype != torch.bool or masks.shape != images.shape[:1] + images.shape[2:]):
        expected = tuple(images.shape[:1] + images.shape[2:])
        raise UsageError(f"masks: expected bool {expected}, True on padding, got {masks.dtype} {tuple(masks.shape)}")
    if outputs is not None and outputs not in get_args(Outputs):
        raise unknown_name("outputs", outputs, get_args(Outputs))
