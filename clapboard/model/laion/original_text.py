"""The text embeddings of LAION's code, computed from its own weights by their own names, to check conversions."""

from __future__ import annotations

import torch
from torch.nn import functional

from clapboard.model.laion.checkpoint import HEAD_WIDTH, State, Towers
from clapboard.model.laion.original_audio import projected

_ROBERTA_FIRST_PLACE = 2


def text_embedding(state: State, towers: Towers, ids: list[int]) -> torch.Tensor:
    """The tokens of a single text, without padding → unit-norm `[1, D]`."""
    tokens = torch.tensor(ids)
    if towers.text == "clip":
        pooled = _clip(state, tokens)
    else:
        first_place = _ROBERTA_FIRST_PLACE if towers.text == "roberta" else 0
        pooled = _bert(state, tokens, first_place, towers.text_sizes["layer_norm_eps"])
    names = ("0.weight", "0.bias", "2.weight", "2.bias")
    return projected({name: state[f"text_projection.{name}"] for name in names}, pooled[None])


def _bert(state: State, tokens: torch.Tensor, first_place: int, epsilon: float) -> torch.Tensor:
    """Layers that normalise after adding (Devlin et al. 2018, arXiv 1810.04805); pooled at the first token."""

    def linear(name: str, values: torch.Tensor) -> torch.Tensor:
        return functional.linear(values, state[f"text_branch.{name}.weight"], state[f"text_branch.{name}.bias"])

    def norm(name: str, values: torch.Tensor) -> torch.Tensor:
        weight, bias = state[f"text_branch.{name}.weight"], state[f"text_branch.{name}.bias"]
        return functional.layer_norm(values, weight.shape, weight, bias, epsilon)

    def table(name: str) -> torch.Tensor:
        return state[f"text_branch.embeddings.{name}_embeddings.weight"]

    places = table("position")[first_place : first_place + len(tokens)]
    hidden = norm("embeddings.LayerNorm", table("word")[tokens] + places + table("token_type")[0])  # [N, C]
    number = 0
    while f"text_branch.encoder.layer.{number}.output.dense.weight" in state:
        layer = f"encoder.layer.{number}"
        query, key, value = (linear(f"{layer}.attention.self.{part}", hidden) for part in ("query", "key", "value"))
        attended = linear(f"{layer}.attention.output.dense", _attended(query, key, value))
        hidden = norm(f"{layer}.attention.output.LayerNorm", hidden + attended)
        wide = functional.gelu(linear(f"{layer}.intermediate.dense", hidden))
        hidden = norm(f"{layer}.output.LayerNorm", hidden + linear(f"{layer}.output.dense", wide))
        number += 1
    return linear("pooler.dense", hidden[0]).tanh()


def _clip(state: State, tokens: torch.Tensor) -> torch.Tensor:
    """Causal layers that normalise first (Radford et al. 2021, arXiv 2103.00020); pooled at the highest token."""

    def norm(name: str, values: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(values, values.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    hidden = state["token_embedding.weight"][tokens] + state["positional_embedding"][: len(tokens)]  # [N, C]
    number = 0
    while f"text_branch.resblocks.{number}.attn.in_proj_weight" in state:
        block = f"text_branch.resblocks.{number}"
        weight, bias = state[f"{block}.attn.in_proj_weight"], state[f"{block}.attn.in_proj_bias"]
        query, key, value = functional.linear(norm(f"{block}.ln_1", hidden), weight, bias).chunk(3, dim=-1)
        attended = _attended(query, key, value, causal=True)
        hidden = hidden + functional.linear(
            attended, state[f"{block}.attn.out_proj.weight"], state[f"{block}.attn.out_proj.bias"]
        )
        wide = functional.linear(
            norm(f"{block}.ln_2", hidden), state[f"{block}.mlp.c_fc.weight"], state[f"{block}.mlp.c_fc.bias"]
        )
        narrow, bias = state[f"{block}.mlp.c_proj.weight"], state[f"{block}.mlp.c_proj.bias"]
        hidden = hidden + functional.linear(functional.gelu(wide), narrow, bias)
        number += 1
    return norm("ln_final", hidden)[tokens.argmax()]


def _attended(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, causal: bool = False) -> torch.Tensor:
    """Attention `[N, C]` of queries, keys and values `[N, C]`, whose heads lie side by side."""
    query, key, value = (torch.unflatten(part, -1, (-1, HEAD_WIDTH)).transpose(0, 1) for part in (query, key, value))
    scores = query @ key.transpose(-1, -2) / HEAD_WIDTH**0.5  # [H, N, N]
    if causal:
        later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return (scores.softmax(dim=-1) @ value).transpose(0, 1).flatten(1)
