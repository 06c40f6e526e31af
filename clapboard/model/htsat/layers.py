"""HTSAT's layers, computed with the parameters of transformers' `ClapAudioEncoder`.

Each is made `of` a layer of the reference, in a dtype, and shares its parameters where the dtype is theirs. `packed`
gives one for inference, whose weights lie in oneDNN's own layout on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from clapboard.model.htsat.fusion import Fusion
from clapboard.model.htsat.order import Border, StageOrder

Tokens = torch.Tensor
"""`[G, B, S, C]`: G groups of S tokens that attend to each other, for each of B windows; C channels."""


@dataclass(frozen=True)
class LayerNorm:
    """Layer normalisation over the channels."""

    weight: torch.Tensor
    bias: torch.Tensor
    eps: float

    @classmethod
    def of(cls, norm: Any, dtype: torch.dtype) -> LayerNorm:
        return cls(norm.weight.to(dtype), norm.bias.to(dtype), norm.eps)

    def __call__(self, tokens: Tokens) -> Tokens:
        return functional.layer_norm(tokens, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class Linear:
    """A matrix product, with or without a bias."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    @classmethod
    def of(cls, dtype: torch.dtype, *layers: Any) -> Linear:
        """One product in place of the layers', whose results then lie side by side."""
        weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
        return cls(torch.cat(weights).to(dtype), None if biases[0] is None else torch.cat(biases).to(dtype))

    def __call__(self, tokens: Tokens) -> Tokens:
        return functional.linear(tokens, self.weight, self.bias)

    def gelu(self, tokens: Tokens) -> Tokens:
        """The product followed by GELU."""
        return functional.gelu(self(tokens))

    def packed(self) -> Linear:
        if self.weight.device.type != "cpu":
            return self
        if self.weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return self  # an older processor, which refuses to pack them
        return _PackedLinear(torch.ops.mkldnn._reorder_linear_weight(self.weight), self.bias)


class _PackedLinear(Linear):
    """For inference on a CPU, by the ops that torch's compiler puts in place of `functional.linear`."""

    def __call__(self, tokens: Tokens) -> Tokens:
        return torch.ops.mkldnn._linear_pointwise(tokens, self.weight, self.bias, "none", [], "")

    def gelu(self, tokens: Tokens) -> Tokens:
        return torch.ops.mkldnn._linear_pointwise(tokens, self.weight, self.bias, "gelu", [], "none")


@dataclass(frozen=True)
class Stem:
    """What comes before the stages: BatchNorm over the mel bands, as stored, and patches → tokens."""

    patch_side: int
    group_side: int
    scale: torch.Tensor  # [64]
    shift: torch.Tensor  # [64]
    kernel: Linear
    norm: LayerNorm | None
    fusion: Fusion | None

    @classmethod
    def of(cls, reference: Any, dtype: torch.dtype) -> Stem:
        config, norm, embed = reference.config, reference.batch_norm, reference.patch_embed
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        kernel = embed.proj.weight.flatten(1)  # [C, 1, P, P] → [C, P²]
        return cls(
            patch_side=config.patch_size,
            group_side=config.window_size,
            scale=scale,
            shift=norm.bias - norm.running_mean * scale,
            kernel=Linear(kernel.to(dtype), embed.proj.bias.to(dtype)),
            norm=LayerNorm.of(embed.norm, dtype) if config.enable_patch_layer_norm else None,
            fusion=Fusion.of(embed, config.window_size) if config.enable_fusion else None,
        )

    def tokens(self, patches: torch.Tensor) -> Tokens:
        """Patches `[G, B, S, P²]` → tokens `[G, B, S, C]`, before their normalisation."""
        return self.kernel(patches.to(self.kernel.weight.dtype))

    def normalised(self, tokens: Tokens) -> Tokens:
        """The tokens through the stem's layer norm, if the checkpoint has one."""
        return self.norm(tokens) if self.norm else tokens


@dataclass(frozen=True)
class Block:
    """A Swin transformer block (Liu et al. 2021, arXiv 2103.14030, eq. 3): attention within groups, then an MLP."""

    norm: LayerNorm
    query_key_value: Linear
    bias: torch.Tensor  # [H, S, S], by relative position
    out: Linear
    norm_after: LayerNorm
    widen: Linear
    narrow: Linear

    @classmethod
    def of(cls, layer: Any, dtype: torch.dtype) -> Block:
        attention = layer.attention.self
        table, index = attention.relative_position_bias_table, attention.relative_position_index  # [225, H], [S, S]
        return cls(
            norm=LayerNorm.of(layer.layernorm_before, dtype),
            query_key_value=Linear.of(dtype, attention.query, attention.key, attention.value),
            bias=table[index.flatten()].view(*index.shape, -1).permute(2, 0, 1).to(dtype).contiguous(),
            out=Linear.of(dtype, layer.attention.output.dense),
            norm_after=LayerNorm.of(layer.layernorm_after, dtype),
            widen=Linear.of(dtype, layer.intermediate.dense),
            narrow=Linear.of(dtype, layer.output.dense),
        )

    def packed(self) -> Block:
        query_key_value, out = self.query_key_value.packed(), self.out.packed()
        widen, narrow = self.widen.packed(), self.narrow.packed()
        return Block(self.norm, query_key_value, self.bias, out, self.norm_after, widen, narrow)

    def __call__(self, tokens: Tokens, borders: Sequence[Border]) -> Tokens:
        tokens = tokens + self.out(self._attention(self.query_key_value(self.norm(tokens)), borders))
        return tokens + self.narrow(self.widen.gelu(self.norm_after(tokens)))

    def _attention(self, query_key_value: torch.Tensor, borders: Sequence[Border]) -> Tokens:
        """`[G, B, S, 3 · C]` → `[G, B, S, C]`, by runs of groups whose scores get the same bias."""
        num_heads = len(self.bias)
        attended = []
        runs = torch.split(query_key_value, [border.num_groups for border in borders])
        for run, border in zip(runs, borders, strict=True):
            # [g, B, S, 3 · C] → 3 × [g · B, H, S, C / H], as views
            query, key, value = (
                torch.unflatten(part.flatten(0, 1), -1, (num_heads, -1)).transpose(1, 2)
                for part in run.chunk(3, dim=-1)
            )
            bias = self.bias if border.mask is None else self.bias + border.mask.to(self.bias.dtype)
            attended.append(_attend(query, key, value, bias).transpose(1, 2).flatten(2))  # [g · B, S, C]
        return torch.cat(attended).view(*query_key_value.shape[:3], -1)


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """softmax(q·kᵀ / √d + bias) · v, of `[g · B, H, S, d]` each."""
    if bias.requires_grad:  # what torch itself does then, without its precautions for rows that attend to nothing
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2) + bias
        return scores.softmax(dim=-1) @ value
    return functional.scaled_dot_product_attention(query, key, value, bias[None])


@dataclass(frozen=True)
class Stage:
    """Blocks, then the merging of each 2 × 2 tokens into one of twice the channels; the last stage merges nothing."""

    blocks: Sequence[Block]
    merge_norm: LayerNorm | None
    merge: Linear | None

    @classmethod
    def of(cls, layer: Any, dtype: torch.dtype) -> Stage:
        blocks, down = [Block.of(block, dtype) for block in layer.blocks], layer.downsample
        if down is None:
            return cls(blocks, None, None)
        return cls(blocks, LayerNorm.of(down.norm, dtype), Linear.of(dtype, down.reduction))

    def packed(self) -> Stage:
        blocks = [block.packed() for block in self.blocks]
        return Stage(blocks, self.merge_norm, self.merge and self.merge.packed())

    def __call__(self, tokens: Tokens, order: StageOrder) -> Tokens:
        for block, block_order in zip(self.blocks, order.blocks, strict=True):
            tokens = block_order.arrival(tokens) if block_order.arrival else tokens
            tokens = block(tokens, block_order.borders)
        if self.merge and self.merge_norm and order.merging:
            children = torch.unflatten(order.merging(tokens), 2, (-1, 4))  # [g, B, S, 4, C]
            return self.merge(self.merge_norm(children.flatten(3)))  # [g, B, S, 4 · C] → [g, B, S, 2 · C]
        return tokens
