"""The small building blocks that encoders, decoders and heads share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from detrbench.models.attention import SelfAttention, sampled_attention
from detrbench.models.dimensions import Dimensions
from detrbench.models.tokens import Points, Tokens

# Focal loss starts out stable when every class begins at this probability (Lin et al., 2017, section 3.3).
CLASS_PRIOR = 0.01


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int) -> None:
        super().__init__()
        widths = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def xavier(self) -> MLP:
        """The same layers with Xavier's weights, as the official code has whatever stands in its transformer."""
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            nn.init.xavier_uniform_(layer.weight)
        return self

    @property
    def last(self) -> nn.Linear:
        """The layer that the output comes from."""
        layer = self.layers[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """(..., C_in) -> (..., C_out)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class FeedForward(nn.Module):
    """Two linear layers with a residual and a norm behind them (post-norm).

    Args:
        dimensions: widths.
        activation: between them.
    """

    def __init__(self, dimensions: Dimensions, activation: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.activation = activation
        self.linear1 = nn.Linear(dimensions.hidden_dim, dimensions.ffn_dim)
        self.linear2 = nn.Linear(dimensions.ffn_dim, dimensions.hidden_dim)
        self.norm = nn.LayerNorm(dimensions.hidden_dim)
        self.dropout = dimensions.dropout
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, Q, C) -> (N, Q, C)."""
        hidden = F.dropout(self.activation(self.linear1(x)), self.dropout, self.training)
        return self.norm(x + F.dropout(self.linear2(hidden), self.dropout, self.training))


class EncoderLayer(nn.Module):
    """Sampled attention of some tokens to all tokens, then a feed-forward network.

    Attributes:
        recomputed: keep a layer's input alone, and compute all else a second time for the gradient.
    """

    recomputed = False

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        self.attention = sampled_attention(dimensions)
        self.attention_norm = nn.LayerNorm(dimensions.hidden_dim)
        self.feed_forward = FeedForward(dimensions)
        self.dropout = dimensions.dropout

    def forward(
        self, query: Tensor, position: Tensor, reference_points: Tensor, memory: Tensor, tokens: Tokens
    ) -> Tensor:
        """Update (N, Q, C) queries from (N, S, C) memory."""
        given = query, position, reference_points, memory, tokens
        if self.recomputed and torch.is_grad_enabled():
            updated: Tensor = checkpoint(self.update, *given, use_reentrant=False)
            return updated
        return self.update(*given)

    def update(
        self, query: Tensor, position: Tensor, reference_points: Tensor, memory: Tensor, tokens: Tokens
    ) -> Tensor:
        """(B, Q, C), what `forward` does, once; arguments as there."""
        return self.feed_forward(self.attend(query, position, reference_points, memory, tokens))

    def attend(
        self, query: Tensor, position: Tensor, reference_points: Tensor, memory: Tensor, tokens: Tokens
    ) -> Tensor:
        """The attention alone, with its residual and norm; arguments as for `forward`."""
        sampled = self.attention(query + position, reference_points, memory, tokens)
        return self.attention_norm(query + F.dropout(sampled.output, self.dropout, self.training))


class Updated(NamedTuple):
    """What a decoder layer makes of its queries.

    Attributes:
        content: (N, Q, C).
        inner: (N, Q, C) as they were between the two attentions.
        points: where they sampled.
    """

    content: Tensor
    inner: Tensor
    points: Points


class DecoderLayer(nn.Module):
    """Self-attention among queries, sampled attention to the memory, a feed-forward network.

    Args:
        dimensions: widths.
        self_attention_first: otherwise the two attentions change places.
        attention: makes the sampled attention.
    """

    def __init__(
        self,
        dimensions: Dimensions,
        self_attention_first: bool = True,
        attention: Callable[[Dimensions], nn.Module] = sampled_attention,
    ) -> None:
        super().__init__()
        self.self_attention_first = self_attention_first
        self.self_attention = SelfAttention(dimensions)
        self.self_attention_norm = nn.LayerNorm(dimensions.hidden_dim)
        self.cross_attention = attention(dimensions)
        self.cross_attention_norm = nn.LayerNorm(dimensions.hidden_dim)
        self.feed_forward = FeedForward(dimensions)
        self.dropout = dimensions.dropout

    def forward(
        self,
        content: Tensor,
        position: Tensor,
        reference_points: Tensor,
        memory: Tensor,
        tokens: Tokens,
        blocked: Tensor | None = None,
        mixing: bool = True,
    ) -> Updated:
        """Update (N, Q, C) content; where it sampled is returned for the decoder's attention map.

        Without `mixing` there is no self-attention: each query stays on its own.
        """
        if self.self_attention_first:
            inner = self.mix(content, position, blocked) if mixing else content
            content, points = self.sample(inner, position, reference_points, memory, tokens)
        else:
            inner, points = self.sample(content, position, reference_points, memory, tokens)
            content = self.mix(inner, position, blocked) if mixing else inner
        return Updated(self.feed_forward(content), inner, points)

    def mix(self, content: Tensor, position: Tensor, blocked: Tensor | None) -> Tensor:
        """Self-attention with its residual and norm; arguments as for `forward`."""
        mixed = self.self_attention(content, position, blocked)
        return self.self_attention_norm(content + F.dropout(mixed, self.dropout, self.training))

    def sample(
        self, content: Tensor, position: Tensor, reference_points: Tensor, memory: Tensor, tokens: Tokens
    ) -> tuple[Tensor, Points]:
        """Attention to the memory with its residual and norm; arguments as for `forward`."""
        sampled = self.cross_attention(content + position, reference_points, memory, tokens)
        content = self.cross_attention_norm(content + F.dropout(sampled.output, self.dropout, self.training))
        return content, sampled.points


def with_whole_gradient(normed: Tensor) -> Tensor:
    """The same (B, C, H, W) of a batch norm, whose gradient will lie in memory as the values do.

    Flattened levels hand back a part of a larger gradient, transposed. PyTorch 2.14 takes that of a single image for
    another one on the CPU, and gives the norm wrong gradients without a word.
    """
    if normed.requires_grad:
        normed.register_hook(Tensor.contiguous)
    return normed


def class_head(dimensions: Dimensions) -> nn.Linear:
    """C -> K logits, each class starting at `CLASS_PRIOR`."""
    head = nn.Linear(dimensions.hidden_dim, dimensions.num_classes)
    nn.init.constant_(head.bias, -math.log((1 - CLASS_PRIOR) / CLASS_PRIOR))
    return head


def box_head(dimensions: Dimensions) -> MLP:
    """C -> 4 corrections in logit space, zero at the start."""
    head = MLP(dimensions.hidden_dim, dimensions.hidden_dim, 4, 3)
    nn.init.zeros_(head.last.weight)
    nn.init.zeros_(head.last.bias)
    return head
