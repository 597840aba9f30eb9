"""Denoising: in training, noised objects stand in front of the queries and are to be restored (DN-DETR, DINO).

Noised queries come in groups; each group holds all objects of an image, so that a group is one more chance to learn
from each of them. No matching is needed: who noised an object knows it. Noise is drawn on the host: it is the same for
every device, and nobody waits to learn how many labels were drawn anew. Shapes: B images, T objects of all images, G
groups, S slots of a group, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrbench.models.boxes import cxcywh_to_xyxy, inverse_sigmoid, xyxy_to_cxcywh
from detrbench.models.contracts import Denoising, PlacesQueries
from detrbench.models.criterion import LossTerm, decoder_suffixes, layer_losses
from detrbench.models.dimensions import Dimensions
from detrbench.models.losses import Losses, MatchedLosses, Supervision
from detrbench.models.matcher import Matched, stacked
from detrbench.models.precision import in_full
from detrbench.models.targets import Objects, Target
from detrbench.models.tokens import Prediction, Queries
from detrbench.models.transfer import upload

if TYPE_CHECKING:
    from detrbench.models.detector import DetectorOutput


@dataclass
class Noised:
    """Noised objects.

    Attributes:
        content: (B, G * S, C), zero in slots without an object.
        boxes: (B, G * S, 4), the whole image's middle half in slots without an object.
        groups: G.
    """

    content: Tensor
    boxes: Tensor
    groups: int


class NoDenoising(nn.Module, Denoising):
    """Leaves the queries as they are."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()

    def forward(self, queries: Queries, targets: list[Target], selection: PlacesQueries) -> Queries:
        """The same queries."""
        return queries


class NoisedObjects(nn.Module, Denoising):
    """What all kinds of denoising share: slots, masks, loss. A kind says how objects are noised."""

    def forward(self, queries: Queries, targets: list[Target], selection: PlacesQueries) -> Queries:
        """Put noised objects in front; a batch without objects stays as it is.

        Args:
            queries: as they were selected.
            targets: the objects of each image.
            selection: gives noised queries their position embedding.
        """
        objects = Objects.of(targets, in_full(queries.reference_points))
        if not objects.most:
            return queries
        noised = self.noise(objects)
        count = noised.content.shape[1]
        blocked = blocked_attention(count, noised.groups, queries.content.shape[1], queries.content.device)
        if queries.blocked is not None:
            blocked[count:, count:] |= queries.blocked
        position, noised_position = queries.position, selection.position_of(noised.boxes)
        if position is not None and noised_position is not None:
            position = torch.cat([noised_position, position], 1)
        return replace(
            queries,
            content=torch.cat([noised.content, queries.content], 1),
            position=position,
            reference_points=torch.cat([noised.boxes, queries.reference_points], 1),
            blocked=blocked,
            noised=count,
            noised_groups=noised.groups,
        )

    def noise(self, objects: Objects) -> Noised:
        """Noised objects of every image, of which one at least has some."""
        raise NotImplementedError

    def loss_terms(self) -> list[LossTerm]:
        """Noised positives are to become their objects, all others nothing."""
        return [DenoisingLoss()]


class ContrastiveDenoising(NoisedObjects):
    """DINO's contrastive denoising (CDN, section 3.3).

    A group holds a lightly noised copy of each object, to be restored, and a heavily noised one, to be rejected.

    Args:
        dimensions: widths and classes.
        denoising_queries: positives an image; there are as many groups as fit into that number, one at least.
        label_noise: twice the share of labels that are drawn anew.
        box_noise: a positive's corners move by up to this share of half the side, a negative's by once to twice that.
        no_object_row: the label embedding has one row more than there are classes, as in DINO's own code.
    """

    def __init__(
        self,
        dimensions: Dimensions,
        denoising_queries: int,
        label_noise: float,
        box_noise: float,
        no_object_row: bool,
    ) -> None:
        super().__init__()
        self.num_classes, self.logit_eps = dimensions.num_classes, dimensions.logit_eps
        self.denoising_queries, self.label_noise, self.box_noise = denoising_queries, label_noise, box_noise
        self.label_embedding = nn.Embedding(dimensions.num_classes + no_object_row, dimensions.hidden_dim)

    def noise(self, objects: Objects) -> Noised:
        """Groups of positives, then negatives; arguments as for `NoisedObjects`."""
        groups = max(self.denoising_queries // objects.most, 1)
        labels, boxes = objects.labels.repeat(2 * groups), objects.boxes.repeat(2 * groups, 1)
        labels = replace_labels(labels, self.label_noise / 2, self.num_classes)
        boxes = self._move_corners(boxes, groups)
        return place(self.label_embedding(labels), boxes, objects, 2 * groups, groups, self.logit_eps)

    def _move_corners(self, boxes: Tensor, groups: int) -> Tensor:
        """Of (2 * G * T, 4) boxes, those of positives and of negatives in turn."""
        if self.box_noise == 0:
            return boxes
        half = boxes[:, 2:].repeat(1, 2) / 2
        host = torch.empty(boxes.shape, dtype=boxes.dtype)
        negative = (torch.arange(2 * groups) % 2 == 1).repeat_interleave(len(boxes) // (2 * groups))
        direction = torch.randint_like(host, 0, 2) * 2 - 1
        distance = torch.rand_like(host) + negative[:, None]
        corners = cxcywh_to_xyxy(boxes) + upload(direction * distance, boxes.device) * half * self.box_noise
        return xyxy_to_cxcywh(corners.clamp(0, 1))


class PlainDenoising(NoisedObjects):
    """DN-DETR's denoising (Li et al., CVPR 2022, section 4), as detrex has it for Deformable DETR.

    The last channel of a noised content is 1, and the label embedding one channel narrower.

    Args:
        dimensions: widths and classes.
        denoising_groups: noised copies of all objects.
        label_noise: share of labels that are drawn anew.
        box_noise: centres move by up to this share of half the side, sides grow or shrink by up to this share.
    """

    def __init__(self, dimensions: Dimensions, denoising_groups: int, label_noise: float, box_noise: float) -> None:
        super().__init__()
        # One class more than there are, drawn like any other, as in the official code.
        self.num_labels, self.logit_eps = dimensions.num_classes + 1, dimensions.logit_eps
        self.groups, self.label_noise, self.box_noise = denoising_groups, label_noise, box_noise
        self.label_embedding = nn.Embedding(self.num_labels, dimensions.hidden_dim - 1)

    def noise(self, objects: Objects) -> Noised:
        """Groups of noised objects; arguments as for `NoisedObjects`."""
        labels, boxes = objects.labels.repeat(self.groups), objects.boxes.repeat(self.groups, 1)
        labels = replace_labels(labels, self.label_noise, self.num_labels)
        content = F.pad(self.label_embedding(labels), (0, 1), value=1.0)
        return place(content, self._move_and_scale(boxes), objects, self.groups, self.groups, self.logit_eps)

    def _move_and_scale(self, boxes: Tensor) -> Tensor:
        if self.box_noise == 0:
            return boxes
        size = boxes[:, 2:]
        reach = torch.cat([size / 2, size], -1) * self.box_noise
        noise = torch.rand_like(torch.empty(boxes.shape, dtype=boxes.dtype)) * 2 - 1
        return (boxes + upload(noise, boxes.device) * reach).clamp(0, 1)


def replace_labels(labels: Tensor, share: float, num_classes: int) -> Tensor:
    """Draw that share of the labels (n,) anew, from all classes."""
    if share == 0:
        return labels
    anew = torch.full(labels.shape, -1)
    chosen = torch.rand_like(anew, dtype=torch.get_default_dtype()) < share
    anew[chosen] = torch.randint_like(anew[chosen], 0, num_classes)
    drawn = upload(anew, labels.device)
    return torch.where(drawn < 0, labels, drawn)


def place(content: Tensor, boxes: Tensor, objects: Objects, blocks: int, groups: int, logit_eps: float) -> Noised:
    """Contents and boxes into the slots of their images; other slots hold nothing.

    Args:
        content: (k * T, C), of all objects, block after block.
        boxes: (k * T, 4).
        objects: T of them.
        blocks: k, of as many slots each as any image has objects.
        groups: of one or more blocks each.
        logit_eps: see `inverse_sigmoid`.
    """
    start = objects.most * torch.arange(blocks, device=boxes.device)
    slots = objects.image.repeat(blocks), (objects.slot + start[:, None]).flatten()
    shape = len(objects.counts), blocks * objects.most
    contents = content.new_zeros(*shape, content.shape[-1]).index_put(slots, content)
    logits = boxes.new_zeros(*shape, 4).index_put(slots, inverse_sigmoid(boxes, logit_eps))
    return Noised(contents, logits.sigmoid(), groups)


def blocked_attention(noised: int, groups: int, others: int, device: torch.device) -> Tensor:
    """(Q, Q) bool, True where the row must not see the column.

    A noised query sees its own group and the ordinary queries, which see only each other, so that no answer leaks.
    """
    group = torch.arange(noised, device=device) // (noised // groups)
    group = torch.cat([group, group.new_full((others,), -1)])
    return (group[None] != group[:, None]) & (group[None] >= 0)


class DenoisingLoss(LossTerm):
    """Class, L1 and GIoU loss of the noised queries of every decoder layer, for their own objects."""

    def forward(
        self,
        out: DetectorOutput,
        objects: Objects,
        matched: Matched | None,
        num_boxes: float,
        supervision: Supervision,
    ) -> Losses:
        """Losses with the suffix `_dn`, and `_dn_i` for layer i before the last; none without noised queries."""
        return noised_losses(supervision.decoder, out.noised, out.queries, objects, num_boxes)


def noised_losses(
    losses: MatchedLosses, layers: list[Prediction], queries: Queries, objects: Objects, num_boxes: float
) -> Losses:
    """The losses of a decoder's noised queries.

    Args:
        losses: of matched predictions.
        layers: predictions of the noised queries, by decoder layer; none where nothing was noised.
        queries: say how many they are, in how many groups.
        objects: that were noised.
        num_boxes: as for the criterion.
    """
    if not layers:
        return {}
    matched = known_matches(stacked(layers), objects, queries.noised_groups)
    suffixes = [f"_dn{suffix}" for suffix in decoder_suffixes(len(layers))]
    return layer_losses(losses, matched, max(num_boxes, 1.0) * queries.noised_groups, suffixes)


def known_matches(noised: Prediction, objects: Objects, groups: int) -> Matched:
    """Layers of noised queries, (L, B, G * S, ...): the first slots of each group are the image's objects, in order."""
    layers, _, queries, _ = noised.boxes.shape
    start = queries // groups * torch.arange(groups, device=objects.slot.device)
    query = (objects.slot[:, None] + start).expand(layers, -1, -1)  # (L, T, G)
    return Matched(noised, objects, query, torch.ones_like(query, dtype=torch.bool))
