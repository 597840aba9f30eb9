"""Query selection: where the decoder's queries come from."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms

from detrbench.models.auxiliary import ProposalLoss
from detrbench.models.boxes import inverse_sigmoid
from detrbench.models.contracts import QuerySelection
from detrbench.models.criterion import LossTerm
from detrbench.models.dimensions import Dimensions
from detrbench.models.positions import box_positions
from detrbench.models.precision import in_full
from detrbench.models.proposals import ProposalHead
from detrbench.models.tokens import Encoded, Outputs, Prediction, Queries, Tokens, gather_tokens

# Of so many times the tokens that are wanted, those that stand beside a better one are found (Salience-DETR).
CANDIDATES = 4


class LearnableQueries(nn.Module, QuerySelection):
    """Learned position and content; the reference point is read off the position (Deformable DETR, section 4.1)."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        self.num_queries = dimensions.num_queries
        rows = dimensions.num_queries + dimensions.further_queries
        self.embedding = nn.Parameter(torch.randn(rows, 2 * dimensions.hidden_dim))
        self.reference_points = nn.Linear(dimensions.hidden_dim, 2)
        nn.init.xavier_uniform_(self.reference_points.weight)
        nn.init.zeros_(self.reference_points.bias)

    def forward(
        self, encoded: Encoded, tokens: Tokens, proposal_head: ProposalHead | None, outputs: Outputs, further: int
    ) -> Queries:
        """The same queries for every image, `further` ones behind them."""
        batch = len(encoded.memory)
        position, content = self.embedding[: self.num_queries + further].expand(batch, -1, -1).chunk(2, -1)
        return Queries(content, position, self.reference_points(position).sigmoid())


class AnchorQueries(nn.Module, QuerySelection):
    """Learned boxes and contents (DAB-DETR, section 4.1), as DN-Deformable-DETR has them.

    The last channel of a content is not learned but says whether the query is a noised object (DN-DETR, section 4.3).
    """

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        self.num_queries = dimensions.num_queries
        rows = dimensions.num_queries + dimensions.further_queries
        # Uniform in the image, none but 5 % from its borders, as detrex has them.
        self.anchors = nn.Parameter(inverse_sigmoid(torch.rand(rows, 4), dimensions.logit_eps).clamp(-3, 3))
        self.content = nn.Parameter(torch.zeros(rows, dimensions.hidden_dim - 1))

    def forward(
        self, encoded: Encoded, tokens: Tokens, proposal_head: ProposalHead | None, outputs: Outputs, further: int
    ) -> Queries:
        """The same queries for every image, `further` ones behind them."""
        batch, count = len(encoded.memory), self.num_queries + further
        content = F.pad(self.content[:count], (0, 1)).expand(batch, -1, -1)
        return Queries(content, None, self.anchors[:count].sigmoid().expand(batch, -1, -1))

    def position_of(self, boxes: Tensor) -> None:
        """None: the decoder makes positions from (B, n, 4) boxes."""


class Selection(NamedTuple):
    """The n encoder tokens that look most like objects, best first.

    Attributes:
        indices: (B, n).
        box_logits: (B, n, 4).
        of_all: what the proposal head predicts for all tokens, where that was asked for.
        logits: (B, S, K) classes of all tokens.
        projected: (B, S, C) what all of it was predicted from.
    """

    indices: Tensor
    box_logits: Tensor
    of_all: Prediction | None
    logits: Tensor
    projected: Tensor


def select_tokens(
    memory: Tensor,
    tokens: Tokens,
    proposal_head: ProposalHead,
    count: int,
    ranking: str,
    redundancy_removal: bool,
    boxes_of_all: bool,
) -> Selection:
    """Rank all tokens, keep the best (Deformable DETR, appendix A.4).

    Args:
        memory: (B, S, C), whose geometry is `tokens`.
        tokens: for the proposals.
        proposal_head: scores and boxes.
        count: how many to keep; all where there are fewer.
        ranking: "first_class" or "max_class", see `EncoderQueries`.
        redundancy_removal: see `best_apart`.
        boxes_of_all: predict boxes for all tokens, rather than for the selected ones.
    """
    proposals, excluded = tokens.proposals()
    projected = proposal_head.project(memory, excluded)
    logits = proposal_head.class_embed(projected)
    scores = logits[..., 0] if ranking == "first_class" else logits.amax(-1)
    if redundancy_removal:
        indices = best_apart(scores, tokens, count)
    else:
        indices = scores.topk(min(count, scores.shape[1]), dim=1).indices
    if boxes_of_all:
        box_logits = proposal_head.box_embed(projected) + proposals
        of_all = Prediction(logits, box_logits.sigmoid())
        return Selection(indices, gather_tokens(box_logits, indices), of_all, logits, projected)
    corrections = proposal_head.box_embed(gather_tokens(projected, indices))
    return Selection(indices, corrections + gather_tokens(proposals, indices), None, logits, projected)


@torch.no_grad()
def best_apart(scores: Tensor, tokens: Tokens, count: int) -> Tensor:
    """Rank tokens so that those right beside a better one come last ("redundancy removal" in Salience-DETR).

    Each of the best candidates stands for a square of two cells a side on its level, and squares that overlap by more
    than 0.3 with a better one give way: those of the four neighbours. Where fewer than `count` tokens are left, which
    the official code cannot run, the best of the others fill up.

    Args:
        scores: (B, S).
        tokens: whose places they are.
        count: how many to find; all where there are fewer.

    Returns:
        (B, n) indices of tokens, best first.
    """
    candidates = scores.topk(min(CANDIDATES * count, scores.shape[1]), dim=1)
    if scores.is_meta:  # which tokens are apart is no matter of shapes
        return candidates.indices[:, :count]
    column, row, level = (each[candidates.indices] for each in cell_places(tokens.sizes, scores.device))
    squares = torch.stack([column - 1, row - 1, column + 1, row + 1], -1).to(in_full(scores))
    # Levels and images lie side by side, too far apart to overlap, so that one suppression serves all of them.
    image = torch.arange(len(scores), device=scores.device)[:, None]
    squares = squares + ((level + len(tokens.sizes) * image) * (max(map(max, tokens.sizes)) + 2))[..., None]
    apart = nms(squares.flatten(0, 1), in_full(candidates.values).flatten(), iou_threshold=0.3)
    beside = torch.ones(candidates.indices.numel(), dtype=torch.bool, device=scores.device).index_fill(0, apart, False)
    place = torch.arange(candidates.indices.shape[1], device=scores.device)
    order = (beside.view_as(candidates.indices) * len(place) + place).sort(dim=1).indices
    return candidates.indices.gather(1, order[:, :count])


def cell_places(sizes: list[tuple[int, int]], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(S,) column, row and level of each token of levels of these sizes (height, width)."""
    places = [
        torch.stack(
            [
                torch.arange(width, device=device).repeat(height),
                torch.arange(height, device=device)[:, None].expand(-1, width).flatten(),
                torch.full((height * width,), level, device=device),
            ]
        )
        for level, (height, width) in enumerate(sizes)
    ]
    column, row, level = torch.cat(places, 1)
    return column, row, level


class EncoderQueries(nn.Module, QuerySelection):
    """Position and content from the encoder tokens that look most like objects (two-stage).

    Args:
        dimensions: widths and the number of queries.
        ranking: "first_class" ranks tokens by their first class logit, which is trained as objectness with every label
            set to 0 (Deformable DETR); "max_class" by their best class (Efficient DETR).
        content: "projected": position and content both come from the box's sine embedding; "memory": content is the
            token itself and only the position is projected.
        mixed_selection: instead, content is learned, by rank (DINO, section 3.4; H-DETR). The projection still makes
            the other half too, as H-DETR's code does, and nothing reads it.
        proposals_matched_by: in training, objects are matched to proposals by the "prediction", or by the "anchor" that
            each token's box is predicted from (MS-DETR).
        redundancy_removal: see `best_apart`.
    """

    needs_projection = needs_prediction = True

    def __init__(
        self,
        dimensions: Dimensions,
        ranking: str,
        content: str,
        mixed_selection: bool,
        proposals_matched_by: str,
        redundancy_removal: bool = False,
    ) -> None:
        super().__init__()
        self.num_queries, self.ranking, self.content = dimensions.num_queries, ranking, content
        self.matched_by, self.redundancy_removal = proposals_matched_by, redundancy_removal
        width = dimensions.hidden_dim
        self.embedding: nn.Parameter | None = None
        if mixed_selection:
            self.embedding = nn.Parameter(torch.randn(dimensions.num_queries + dimensions.further_queries, width))
        out = 2 * width if content == "projected" else width
        self.position_features = width // 2
        self.position_projection = nn.Linear(2 * width, out)
        self.position_norm = nn.LayerNorm(out)
        nn.init.xavier_uniform_(self.position_projection.weight)

    def forward(
        self, encoded: Encoded, tokens: Tokens, proposal_head: ProposalHead | None, outputs: Outputs, further: int
    ) -> Queries:
        """Queries at the boxes of the best tokens, with "all" the prediction for every token, as its loss needs."""
        assert proposal_head is not None
        count = self.num_queries + further
        how = self.ranking, self.redundancy_removal
        selection = select_tokens(encoded.memory, tokens, proposal_head, count, *how, outputs == "all")
        reference_points = selection.box_logits.detach().sigmoid()
        embedding = self._embed(reference_points)
        position = embedding[..., : 2 * self.position_features]
        if self.embedding is not None:
            content = self.embedding[: position.shape[1]].expand(len(position), -1, -1)
        elif self.content == "memory":
            content = gather_tokens(encoded.memory, selection.indices)
        else:
            content = embedding[..., 2 * self.position_features :]
        return Queries(content, position, reference_points, selection.of_all)

    def _embed(self, boxes: Tensor) -> Tensor:
        return self.position_norm(self.position_projection(box_positions(boxes, self.position_features)))

    def position_of(self, boxes: Tensor) -> Tensor:
        """(B, n, 4) boxes in [0, 1] -> (B, n, C), as for the queries themselves."""
        return self._embed(boxes)[..., : 2 * self.position_features]

    def loss_terms(self) -> list[LossTerm]:
        """The proposal head is trained on all tokens."""
        return [ProposalLoss(self.ranking == "first_class", self.matched_by == "anchor")]


class BoxQueries(nn.Module, QuerySelection):
    """Boxes from the best encoder tokens; a kind says where contents come from.

    Args:
        dimensions: the number of queries.
        boxes_of: "all": in training the boxes of all tokens are computed before the selection; "always": in inference
            too, as the code of DINO and RT-DETR does; "selected": of the selected tokens only (Lite DETR). What comes
            out is the same.
        redundancy_removal: see `best_apart`.
    """

    needs_projection = needs_prediction = True

    def __init__(self, dimensions: Dimensions, boxes_of: str, redundancy_removal: bool = False) -> None:
        super().__init__()
        self.num_queries, self.boxes_of = dimensions.num_queries, boxes_of
        self.redundancy_removal = redundancy_removal

    def contents(self, selection: Selection) -> Tensor:
        """(B, n, C) of the n queries at the selected tokens."""
        raise NotImplementedError

    def forward(
        self, encoded: Encoded, tokens: Tokens, proposal_head: ProposalHead | None, outputs: Outputs, further: int
    ) -> Queries:
        """Queries at the boxes of the best tokens, and what was predicted for those."""
        assert proposal_head is not None
        of_all = self.boxes_of == "always" or (outputs == "all" and self.boxes_of == "all")
        count = self.num_queries + further
        how = "max_class", self.redundancy_removal
        selection = select_tokens(encoded.memory, tokens, proposal_head, count, *how, of_all)
        boxes = selection.box_logits.sigmoid()
        selected = Prediction(gather_tokens(selection.logits, selection.indices), boxes)
        return Queries(self.contents(selection), None, boxes.detach(), selected)

    def position_of(self, boxes: Tensor) -> None:
        """None: the decoder makes positions from (B, n, 4) boxes."""

    def loss_terms(self) -> list[LossTerm]:
        """The proposal head is trained on the selected tokens, with their classes."""
        return [ProposalLoss(class_agnostic=False)]


class MixedQueries(BoxQueries):
    """Learned content by rank (DINO, section 3.4)."""

    def __init__(self, dimensions: Dimensions, boxes_of: str, redundancy_removal: bool = False) -> None:
        super().__init__(dimensions, boxes_of, redundancy_removal)
        rows = dimensions.num_queries + dimensions.further_queries
        self.content = nn.Parameter(torch.empty(rows, dimensions.hidden_dim))
        nn.init.xavier_uniform_(self.content)

    def contents(self, selection: Selection) -> Tensor:
        """(B, n, C), the same for every image."""
        batch, count = selection.indices.shape
        return self.content[:count].expand(batch, -1, -1)


class TokenQueries(BoxQueries):
    """The content is what the token's class and box were predicted from, without gradient to it (RT-DETR)."""

    def contents(self, selection: Selection) -> Tensor:
        """(B, n, C) of the selected tokens."""
        return gather_tokens(selection.projected, selection.indices).detach()
