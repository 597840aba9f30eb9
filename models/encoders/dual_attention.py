"""Focus-DETR's second attention: dense, among the few most promising of the kept tokens (section 3.3)."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from detrbench.models.attention import SelfAttention
from detrbench.models.dimensions import Dimensions
from detrbench.models.proposals import ProposalHead
from detrbench.models.tokens import gather_tokens

# How many tokens take part in the official code.
FINE_TOKENS = 300


class DualAttention(nn.Module):
    """Self-attention among the best-scored tokens of a layer, before they look at all tokens.

    Args:
        dimensions: widths; this attention never drops out.
        fine_tokens: see `ObjectTokens`.
        category_score: see `ObjectTokens`.
    """

    def __init__(self, dimensions: Dimensions, fine_tokens: int, category_score: bool) -> None:
        super().__init__()
        self.object_tokens = ObjectTokens(fine_tokens, category_score)
        self.attention = SelfAttention(replace(dimensions, dropout=0.0))
        self.norm = nn.LayerNorm(dimensions.hidden_dim)

    def forward(self, query: Tensor, position: Tensor, scores: Tensor, proposal_head: ProposalHead) -> Tensor:
        """Update the important ones of the tokens.

        Args:
            query: (B, n, C) kept tokens.
            position: (B, n, C).
            scores: (B, n) by which they were kept.
            proposal_head: whose class logits tell how much like an object a token looks.

        Returns:
            (B, n, C).
        """
        fine = self.object_tokens(query, scores, proposal_head)
        chosen = gather_tokens(query, fine)
        updated = self.norm(chosen + self.attention(chosen, gather_tokens(position, fine)))
        return query.scatter(1, fine[..., None].expand_as(updated), updated)


class ObjectTokens(nn.Module):
    """Which tokens take part: the most important ones.

    A token's importance is its score times the best class logit it gets from the proposal head. Both are raw logits in
    the official code, so two negative ones make a token important.

    Args:
        fine_tokens: how many tokens take part; all of them where there are fewer.
        category_score: multiply by the class logit; otherwise the score alone decides.
    """

    def __init__(self, fine_tokens: int, category_score: bool) -> None:
        super().__init__()
        self.fine_tokens, self.category_score = fine_tokens, category_score

    def forward(self, query: Tensor, scores: Tensor, proposal_head: ProposalHead) -> Tensor:
        """(B, m) rows of the (B, n, C) tokens; arguments as for `DualAttention`."""
        importance = proposal_head.class_embed(query).amax(-1) * scores if self.category_score else scores
        return importance.topk(min(self.fine_tokens, query.shape[1]), dim=1).indices
