"""Denoising: in training, noised objects stand in front of the queries and are to be restored (DN-DETR, DINO).

Noised queries come in groups; each group holds all objects of an image, so that a group is one more chance to learn
from each of them. No matching is needed: who noised an object knows it. Shapes: B images, n objects of one image,
N the most objects of any, G groups, T slots of a group, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrbench.models.boxes import cxcywh_to_xyxy, inverse_sigmoid, xyxy_to_cxcywh
from detrbench.models.contracts import Denoising, PlacesQueries
from detrbench.models.criterion import LossTerm
from detrbench.models.dimensions import Dimensions
from detrbench.models.losses import Losses, MatchedLosses, Supervision
from detrbench.models.matcher import Matches, Target
from detrbench.models.tokens import Prediction, Queries

if TYPE_CHECKING:
    from detrbench.models.detector import DetectorOutput


@dataclass
class Noised:
    """Noised objects.

    Attributes:
        content: (B, G * T, C), zero in slots without an object.
        boxes: (B, G * T, 4), the whole image's middle half in slots without an object.
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
        if not any(len(target["labels"]) for target in targets):
            return queries
        noised = self.noise(targets, queries.content)
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

    def noise(self, targets: list[Target], like: Tensor) -> Noised:
        """Noised objects of every image, in the type and on the device of `like`, (B, Q, C)."""
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

    def noise(self, targets: list[Target], like: Tensor) -> Noised:
        """Groups of positives, then negatives; arguments as for `NoisedObjects`."""
        most = max(len(target["labels"]) for target in targets)
        groups = max(self.denoising_queries // most, 1)
        labels = torch.cat([target["labels"] for target in targets]).repeat(2 * groups)
        boxes = torch.cat([target["boxes"] for target in targets]).to(like).repeat(2 * groups, 1)
        negative = (torch.arange(2 * groups, device=like.device) % 2 == 1).repeat_interleave(
            len(labels) // (2 * groups)
        )
        labels = replace_labels(labels, self.label_noise / 2, self.num_classes)
        boxes = self._move_corners(boxes, negative)
        slots = object_slots(targets, most, 2 * groups, like.device)
        shape = (len(targets), 2 * groups * most)
        return place(self.label_embedding(labels), boxes, slots, groups, shape, self.logit_eps)

    def _move_corners(self, boxes: Tensor, negative: Tensor) -> Tensor:
        if self.box_noise == 0:
            return boxes
        half = boxes[:, 2:].repeat(1, 2) / 2
        direction = torch.randint_like(boxes, 0, 2) * 2 - 1
        distance = torch.rand_like(boxes) + negative[:, None]
        corners = cxcywh_to_xyxy(boxes) + direction * distance * half * self.box_noise
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

    def noise(self, targets: list[Target], like: Tensor) -> Noised:
        """Groups of noised objects; arguments as for `NoisedObjects`."""
        most = max(len(target["labels"]) for target in targets)
        labels = torch.cat([target["labels"] for target in targets]).repeat(self.groups)
        boxes = torch.cat([target["boxes"] for target in targets]).to(like).repeat(self.groups, 1)
        labels = replace_labels(labels, self.label_noise, self.num_labels)
        content = F.pad(self.label_embedding(labels), (0, 1), value=1.0)
        slots = object_slots(targets, most, self.groups, like.device)
        shape = (len(targets), self.groups * most)
        return place(content, self._move_and_scale(boxes), slots, self.groups, shape, self.logit_eps)

    def _move_and_scale(self, boxes: Tensor) -> Tensor:
        if self.box_noise == 0:
            return boxes
        size = boxes[:, 2:]
        reach = torch.cat([size / 2, size], -1) * self.box_noise
        return (boxes + (torch.rand_like(boxes) * 2 - 1) * reach).clamp(0, 1)


def replace_labels(labels: Tensor, share: float, num_classes: int) -> Tensor:
    """Draw that share of the labels (n,) anew, from all classes."""
    if share == 0:
        return labels
    chosen = torch.rand_like(labels, dtype=torch.get_default_dtype()) < share
    labels = labels.clone()
    labels[chosen] = torch.randint_like(labels[chosen], 0, num_classes)
    return labels


def object_slots(targets: list[Target], most: int, blocks: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Image and slot, (n,) both, of all n objects of all blocks. A block holds `most` slots."""
    counts = [len(target["labels"]) for target in targets]
    images = torch.cat([torch.full((count,), image, device=device) for image, count in enumerate(counts)])
    slots = torch.cat([torch.arange(count, device=device) for count in counts])
    starts = torch.arange(blocks, device=device).repeat_interleave(len(slots)) * most
    return images.repeat(blocks), slots.repeat(blocks) + starts


def place(
    content: Tensor,
    boxes: Tensor,
    slots: tuple[Tensor, Tensor],
    groups: int,
    shape: tuple[int, int],
    logit_eps: float,
) -> Noised:
    """Contents (k, C) and boxes (k, 4) into the slots of their images, (B, G * T); other slots hold nothing."""
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

    def forward(self, out: DetectorOutput, targets: list[Target], num_boxes: float, supervision: Supervision) -> Losses:
        """Losses with the suffix `_dn`, and `_dn_i` for layer i before the last; none without noised queries."""
        return noised_losses(supervision.decoder, out.noised, out.queries, targets, num_boxes)


def noised_losses(
    losses_of: MatchedLosses, layers: list[Prediction], queries: Queries, targets: list[Target], num_boxes: float
) -> Losses:
    """The losses of a decoder's noised queries.

    Args:
        losses_of: matched predictions.
        layers: predictions of the noised queries, by decoder layer.
        queries: say how many they are, in how many groups.
        targets: as for the criterion.
        num_boxes: as for the criterion.
    """
    losses: Losses = {}
    for index, prediction in enumerate(layers):
        groups = queries.noised_groups
        matches = known_matches(targets, queries.noised // groups, groups, prediction.boxes.device)
        suffix = "_dn" if index == len(layers) - 1 else f"_dn_{index}"
        terms = losses_of(prediction, targets, matches, max(num_boxes, 1.0) * groups)
        losses |= {name + suffix: loss for name, loss in terms.items()}
    return losses


def known_matches(targets: list[Target], slots: int, groups: int, device: torch.device) -> Matches:
    """The first slots of each group are the image's objects, in their order."""
    matches = []
    for target in targets:
        objects = torch.arange(len(target["labels"]), device=device)
        starts = torch.arange(groups, device=device).repeat_interleave(len(objects)) * slots
        matches.append((objects.repeat(groups) + starts, objects.repeat(groups)))
    return matches
