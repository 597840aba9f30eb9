"""The detector: a choice of parts, run in order.

backbone -> neck -> encoder -> queries -> decoder -> heads; in training, one_to_many and denoising stand between queries
and decoder, and an auxiliary decoder beside it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from detrbench.errors import UsageError
from detrbench.models.auxiliary import ProposalLoss
from detrbench.models.catalogue import CRITERION
from detrbench.models.criterion import Criterion, DecoderLoss
from detrbench.models.dimensions import Dimensions
from detrbench.models.heads import DetectionHeads, ProposalHead
from detrbench.models.matcher import Target
from detrbench.models.parts import ALL_KINDS, KINDS, TRAINING_KINDS, get_part
from detrbench.models.spec import DetectorSpec
from detrbench.models.tokens import Decoded, Encoded, Prediction, Queries, Tokens
from detrbench.models.trace import Recorder, Trace
from detrbench.models.trace import make as make_trace


@dataclass
class Branch:
    """Predictions of one run of the decoder by layer, for each group of queries: ordinary, noised, one-to-many."""

    layers: list[Prediction]
    noised: list[Prediction]
    one_to_many: list[Prediction]


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
    """A DETR-like detector; see `build`."""

    def __init__(self, spec: DetectorSpec, parts: Mapping[str, Any], proposal_head: ProposalHead | None) -> None:
        super().__init__()
        self.spec = spec
        # An encoder may read class logits that no query selection trains; then the detector does.
        self.trains_proposals = parts["encoder"].needs_prediction and not parts["queries"].needs_prediction
        self.backbone, self.neck, self.encoder = parts["backbone"], parts["neck"], parts["encoder"]
        self.queries, self.decoder, self.heads = parts["queries"], parts["decoder"], parts["heads"]
        self.one_to_many, self.denoising = parts["one_to_many"], parts["denoising"]
        self.auxiliary_decoder = parts["auxiliary_decoder"]
        # Shared by the encoder and query selection, so it belongs to neither.
        self.proposal_head = proposal_head
        terms = [term for kind in ("queries", "encoder", *TRAINING_KINDS) for term in parts[kind].loss_terms()]
        if self.trains_proposals:
            terms.append(ProposalLoss(class_agnostic=False))
        self.criterion = Criterion([DecoderLoss(), *terms], **{name: spec.options[name] for name in CRITERION})

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
        outputs: str | None = None,
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
        check_input(images, masks)
        every = (outputs or ("all" if self.training else "final")) == "all"
        tokens = self.neck(self.backbone(images), masks, images.shape[-2:])
        recorder = Recorder()
        with recorder.watching(self.encoder) if trace else contextlib.nullcontext():
            encoded = self.encoder(tokens, self.proposal_head, every)
        tokens = encoded.tokens or tokens
        further = self.one_to_many.further_queries if targets is not None else 0
        queries = self.queries(encoded, tokens, self.proposal_head, every, further)
        if every and self.trains_proposals and self.proposal_head is not None:
            queries.proposals = self.proposal_head.predict(encoded.memory, tokens)
        if targets is not None:
            queries = self.one_to_many(queries)
            queries = self.denoising(queries, targets, self.queries)
        decoded = self.decoder(queries, encoded, tokens, self.heads, every)
        branch = self._predict(decoded, queries)
        decoded = decoded.of(queries.ordinary)
        out = DetectorOutput(branch.layers, tokens, encoded, queries, decoded, branch.noised, branch.one_to_many)
        if targets is not None:
            again = self.auxiliary_decoder(self.decoder, queries, encoded, tokens, self.heads, every)
            out.auxiliary = None if again is None else self._predict(again, queries)
        if trace:
            out.trace = make_trace(out, recorder)
        return out

    def without_self_attention(self, out: DetectorOutput) -> list[Prediction]:
        """What each decoder layer says of the same queries where no layer lets them attend to each other.

        Args:
            out: of this detector, in inference.
        """
        decoded = self.decoder(out.queries, out.encoded, out.tokens, self.heads, True, mixing_layers=0)
        return self._predict(decoded, out.queries).layers

    def _predict(self, decoded: Decoded, queries: Queries) -> Branch:
        """What the heads say of each decoder layer that was returned, for each group of queries."""
        first = self.spec.options["num_decoder_layers"] - len(decoded.states)
        references = decoded.reference_points[-len(decoded.states) :]
        layers = [
            self.heads(first + index, state, reference)
            for index, (state, reference) in enumerate(zip(decoded.states, references))
        ]
        ordinary = queries.ordinary
        return Branch(
            layers=[layer.of(ordinary) for layer in layers],
            noised=[layer.of(slice(0, ordinary.start)) for layer in layers] if queries.noised else [],
            one_to_many=[layer.of(slice(ordinary.stop, None)) for layer in layers] if queries.one_to_many else [],
        )


def build(spec: DetectorSpec) -> Detector:
    """A detector with random weights from a resolved description."""
    dimensions = Dimensions(**spec.common, further_queries=spec.options.get("one_to_many_queries", 0))
    backbone = get_part("backbone", spec.parts["backbone"]).load()(dimensions, **spec.options_of("backbone"))
    parts: dict[str, Any] = {"backbone": backbone}
    for kind in ALL_KINDS[1:]:
        options = spec.options_of(kind)
        if kind == "neck":
            options["in_channels"] = backbone.channels
        parts[kind] = get_part(kind, spec.parts[kind]).load()(dimensions, **options)
        if kind == "encoder":
            levels = getattr(parts[kind], "memory_levels", dimensions.num_levels)
            dimensions = replace(dimensions, num_levels=levels)  # what the parts behind it look at
    predicts = parts["queries"].needs_prediction or parts["encoder"].needs_prediction
    needed = predicts or parts["encoder"].needs_projection
    if not parts["queries"].needs_prediction and isinstance(parts["heads"], DetectionHeads):
        parts["heads"].start_small()
    return Detector(spec, parts, ProposalHead(dimensions, predicts) if needed else None)


def check_input(images: Tensor, masks: Tensor | None) -> None:
    """Refuse what would otherwise fail deep inside, or worse, run."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise UsageError(f"images: expected float (B, 3, H, W), got {images.dtype} {tuple(images.shape)}")
    if masks is not None and (masks.dtype != torch.bool or masks.shape != images.shape[:1] + images.shape[2:]):
        expected = tuple(images.shape[:1] + images.shape[2:])
        raise UsageError(f"masks: expected bool {expected}, True on padding, got {masks.dtype} {tuple(masks.shape)}")
