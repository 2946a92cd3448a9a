"""A transformer whose tokens are the joints."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_pipeline.skeleton import Skeleton
from posenet.models.corrector import Corrector
from posenet.models.layers import check_count, check_dropout, dropout, mlp, zero


class CorrectorTransformer(Corrector):
    """Every joint attends to all joints; a learned embedding identifies the joint of a token.

    Layer normalisation is applied before attention and feed-forward network, and at the end (Xiong et al., "On Layer
    Normalization in the Transformer Architecture", 2020).

    Args:
        skeleton: The skeleton of the poses; any.
        dim: Size of a token; a multiple of `n_heads`.
        n_layers: Transformer layers.
        n_heads: Attention heads.
        feedforward_dim: Hidden units of the feed-forward network.
        dropout: Dropout probability of attention weights, hidden units, and the outputs of both sublayers.
        zero_init: Initialise the last layer with zeros, so that the untrained model returns its input.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        *,
        dim: int,
        n_layers: int,
        n_heads: int,
        feedforward_dim: int,
        dropout: float = 0.0,
        zero_init: bool = False,
    ) -> None:
        super().__init__(skeleton)
        sizes = {"dim": dim, "n_layers": n_layers, "n_heads": n_heads, "feedforward_dim": feedforward_dim}
        for name, value in sizes.items():
            check_count(name, value)
        check_dropout(dropout)
        if dim % n_heads:
            raise ValueError(f"dim must be a multiple of n_heads, but {dim} is not a multiple of {n_heads}")
        self.coordinates = nn.Linear(3, dim)
        self.joints = nn.Parameter(torch.empty(skeleton.n_joints, dim).normal_())
        self.layers = nn.Sequential(
            *(TransformerLayer(dim, n_heads, feedforward_dim, dropout) for _ in range(n_layers))
        )
        self.norm = nn.LayerNorm(dim)
        self.last = nn.Linear(dim, 3)
        if zero_init:
            zero(self.last)

    def correction(self, poses: Tensor) -> Tensor:
        """Returns the correction to add to `poses`, (N, J, 3)."""
        tokens = self.coordinates(poses) + self.joints  # (N, J, 3) -> (N, J, dim)
        correction: Tensor = self.last(self.norm(self.layers(tokens)))  # (N, J, dim) -> (N, J, 3)
        return correction


class TransformerLayer(nn.Module):
    """Attention over the joints, then a feed-forward network for each of them.

    Args:
        dim: Size of a token.
        n_heads: Attention heads.
        feedforward_dim: Hidden units of the feed-forward network.
        dropout: Dropout probability.
    """

    def __init__(self, dim: int, n_heads: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(dim)
        self.queries_keys_values = nn.Linear(dim, 3 * dim)
        self.heads = nn.Linear(dim, dim)
        self.feedforward_norm = nn.LayerNorm(dim)
        self.feedforward = mlp([dim, feedforward_dim, dim], activation="gelu", dropout=dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the tokens, (N, J, dim), after this layer."""
        attended = self.heads(self._attend(self.attention_norm(tokens)))  # (N, J, dim)
        tokens = tokens + dropout(attended, self.dropout, training=self.training, inplace=True)
        fed = self.feedforward(self.feedforward_norm(tokens))  # (N, J, dim)
        return tokens + dropout(fed, self.dropout, training=self.training, inplace=True)

    def _attend(self, tokens: Tensor) -> Tensor:
        projected = self.queries_keys_values(tokens).unflatten(2, (3, self.n_heads, -1))  # (N, J, 3, heads, dim/heads)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)  # (N, heads, J, dim/heads) each
        dropout_p = self.dropout if self.training else 0.0
        attended = functional.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout_p)
        return attended.transpose(1, 2).flatten(2)  # (N, heads, J, dim/heads) -> (N, J, dim)
