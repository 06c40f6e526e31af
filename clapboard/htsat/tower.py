"""HTSAT (Chen et al. 2022, arXiv 2202.00874): log-mel → one vector a window.

It computes with the parameters of transformers' `ClapAudioEncoder`, which stay where they are: what one of them learns,
the other says. What the reference rearranges in every block is arranged once here:

- Tokens lie in the order in which they attend to each other, `[G, B, S, C]`: G groups of 8 × 8 neighbours («windows»
  in the paper; here a window is 10 s of sound) before the batch. So attention reads queries, keys and values where
  their product left them, and a bias holds for all groups with like borders.
- A block whose groups are shifted costs one gather, on the way in; out of it leads the next block's, or the merging's.
- Query, key and value are one product.
- On a CPU, weights lie in oneDNN's own layout, and a few windows at a time go through, so that they stay in the cache.

Fused checkpoints take a recording of any length, too, as four mels: see `clapboard.fusion`.

Dropout is always in inference mode, and so is BatchNorm, unless the reference is in training mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from clapboard.errors import ModelError
from clapboard.features import NUM_MELS
from clapboard.htsat.fusion import Fusion
from clapboard.htsat.image import IMAGE_SIDE, Stretch, images, patches_of
from clapboard.htsat.order import Border, StageOrder, stage_orders

Tokens = torch.Tensor
"""`[G, B, S, C]`: G groups of S tokens that attend to each other, for each of B windows."""

_WINDOWS_AT_ONCE = 2  # on a CPU
_KNOWN_SHAPE = {
    "num_mel_bins": NUM_MELS,
    "spec_size": IMAGE_SIDE,
    "hidden_act": "gelu",
}


class Htsat:
    """The forward pass of a `ClapAudioEncoder`, as a whole or from stage to stage, in `dtype`.

    This one looks at the parameters in every pass, so that gradients reach them; `frozen` gives one for serving.
    """

    def __init__(self, reference: Any, dtype: torch.dtype = torch.float32) -> None:
        """Raises `ModelError` if the tower isn't shaped like HTSAT-tiny or -base."""
        _check_shape(reference)
        self.dtype = dtype
        self._reference = reference
        config, device = reference.config, next(reference.parameters()).device
        self._stretch = Stretch.to_frames(IMAGE_SIDE * IMAGE_SIDE // NUM_MELS, device)
        self._orders = stage_orders(IMAGE_SIDE // config.patch_size, config.window_size, config.depths, device)
        self._kept: tuple[_Stem, Sequence[_Stage], _Norm] | None = None

    @property
    def num_stages(self) -> int:
        """How many stages there are."""
        return len(self._orders)

    def frozen(self) -> Htsat:
        """The same with the parameters as they are now, rearranged once: faster, and without gradients."""
        frozen = Htsat(self._reference, self.dtype)
        copy = Htsat(deepcopy(self._reference).eval().requires_grad_(False), self.dtype)
        with torch.no_grad():
            frozen._kept = copy._stem(), [stage.packed() for stage in copy._stages()], copy._norm()
        return frozen

    def __call__(self, features: torch.Tensor, is_longer: torch.Tensor | None = None) -> torch.Tensor:
        """Log-mel `[B, 1001, 64]`, or four mels as in `tokens` → pooled `[B, C]` float32."""
        few = _WINDOWS_AT_ONCE if self._kept and features.device.type == "cpu" else len(features)
        parts = torch.split(features, few)
        marks = [None] * len(parts) if is_longer is None else torch.split(is_longer, few)
        pooled = [self.pooled(self.through(self.tokens(*part))) for part in zip(parts, marks, strict=True)]
        return torch.cat(pooled)

    def tokens(self, features: torch.Tensor, is_longer: torch.Tensor | None = None) -> Tokens:
        """Log-mel `[B, 1001, 64]` → the first stage's tokens `[G, B, S, C]`.

        Or four mels `[B, 4, 1001, 64]`, the global one first: the local ones are fused into it where `is_longer` `[B]`
        says so, and count for nothing elsewhere. Raises `ValueError` if the checkpoint has learnt no fusion.
        """
        return self.tokens_of(self.normalised(features), is_longer)

    def tokens_of(
        self, normalised: torch.Tensor, is_longer: torch.Tensor | None = None, *, fuse_none: bool = False
    ) -> Tokens:
        """The same of what `normalised` gave.

        With `fuse_none`, fusion is gone through where no clip is longer too: its BatchNorms may meet other processes.
        """
        if normalised.ndim == 3:
            return self.embed(self.cut(normalised))
        stem = self._stem()
        tokens = stem.tokens(self.cut(normalised[:, 0]))
        if is_longer is not None and (fuse_none or is_longer.any()):
            if stem.fusion is None:
                raise ValueError("four mels are for checkpoints with feature fusion, which this one lacks")
            longer = is_longer.nonzero()[:, 0]
            local_images = images(self._stretch(normalised[longer, 1:].flatten(0, 1)))  # [b · 3, 256, 256]
            fused = stem.fusion(tokens.index_select(1, longer), local_images)
            tokens = tokens.index_copy(1, longer, fused)
        return stem.normed(tokens)

    def patches(self, features: torch.Tensor) -> torch.Tensor:
        """Log-mel `[B, 1001, 64]` → the image's patches `[G, B, S, P²]`, float32 like the decibels they come from."""
        return self.cut(self.normalised(features))

    def normalised(self, features: torch.Tensor) -> torch.Tensor:
        """Log-mel `[…, 1001, 64]`, each band by BatchNorm: as stored, or by the batch while the reference trains."""
        if not self._kept and self._reference.training:
            # As rows: of other strides, torch 2.11's BatchNorm has a wrong gradient on CPUs.
            rows: torch.Tensor = self._reference.batch_norm(features.reshape(-1, NUM_MELS, 1, 1))
            return rows.view(features.shape)
        stem = self._stem()
        return torch.addcmul(stem.shift, features, stem.scale)

    def cut(self, normalised: torch.Tensor) -> torch.Tensor:
        """Normalised log-mel `[B, 1001, 64]` → the image's patches `[G, B, S, P²]`."""
        stem = self._stem()
        return patches_of(self._stretch(normalised), stem.patch_side, stem.group_side)  # [B, 1001, 64] → [B, 1024, 64]

    def embed(self, patches: torch.Tensor) -> Tokens:
        """Patches `[G, B, S, P²]` → the first stage's tokens `[G, B, S, C]`."""
        stem = self._stem()
        return stem.normed(stem.tokens(patches))

    def through(self, tokens: Tokens, first: int = 0, stop: int | None = None) -> Tokens:
        """What the stages from `first` to before `stop` make of tokens; all but the last quarter their number."""
        for stage, order in zip(self._stages(first, stop), self._orders[first:stop], strict=True):
            tokens = stage(tokens, order)
        return tokens

    def pooled(self, tokens: Tokens) -> torch.Tensor:
        """The mean of the last stage's tokens, normalised: `[B, C]` float32."""
        return self._norm()(tokens).float().mean(dim=(0, 2))

    def _stem(self) -> _Stem:
        return self._kept[0] if self._kept else _Stem.of(self._reference, self.dtype)

    def _stages(self, first: int = 0, stop: int | None = None) -> Sequence[_Stage]:
        if self._kept:
            return self._kept[1][first:stop]
        return [_Stage.of(layer, self.dtype) for layer in self._reference.layers[first:stop]]

    def _norm(self) -> _Norm:
        return self._kept[2] if self._kept else _Norm.of(self._reference.norm, self.dtype)


@dataclass(frozen=True)
class _Norm:
    weight: torch.Tensor
    bias: torch.Tensor
    eps: float

    @classmethod
    def of(cls, norm: Any, dtype: torch.dtype) -> _Norm:
        return cls(norm.weight.to(dtype), norm.bias.to(dtype), norm.eps)

    def __call__(self, tokens: Tokens) -> Tokens:
        return functional.layer_norm(tokens, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class _Linear:
    weight: torch.Tensor
    bias: torch.Tensor | None

    @classmethod
    def of(cls, dtype: torch.dtype, *parts: Any) -> _Linear:
        """One product instead of the parts', whose results lie side by side."""
        weights, biases = [part.weight for part in parts], [part.bias for part in parts]
        return cls(torch.cat(weights).to(dtype), None if biases[0] is None else torch.cat(biases).to(dtype))

    def __call__(self, tokens: Tokens) -> Tokens:
        return functional.linear(tokens, self.weight, self.bias)

    def gelu(self, tokens: Tokens) -> Tokens:
        return functional.gelu(self(tokens))

    def packed(self) -> _Linear:
        if self.weight.device.type != "cpu":
            return self
        return _PackedLinear(torch.ops.mkldnn._reorder_linear_weight(self.weight), self.bias)


class _PackedLinear(_Linear):
    """For inference on a CPU, by the ops that torch's compiler puts in place of `functional.linear`."""

    def __call__(self, tokens: Tokens) -> Tokens:
        return torch.ops.mkldnn._linear_pointwise(tokens, self.weight, self.bias, "none", [], "")

    def gelu(self, tokens: Tokens) -> Tokens:
        return torch.ops.mkldnn._linear_pointwise(tokens, self.weight, self.bias, "gelu", [], "none")


@dataclass(frozen=True)
class _Stem:
    """BatchNorm in inference mode, and the image's square patches as tokens."""

    patch_side: int
    group_side: int
    scale: torch.Tensor  # [64]
    shift: torch.Tensor
    kernel: _Linear
    norm: _Norm | None
    fusion: Fusion | None

    @classmethod
    def of(cls, reference: Any, dtype: torch.dtype) -> _Stem:
        config, norm, embed = reference.config, reference.batch_norm, reference.patch_embed
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        kernel = _Linear(embed.proj.weight.flatten(1).to(dtype), embed.proj.bias.to(dtype))  # [C, 1, P, P] → [C, P²]
        is_normed = config.enable_patch_layer_norm
        shift = norm.bias - norm.running_mean * scale
        after = _Norm.of(embed.norm, dtype) if is_normed else None
        fusion = Fusion.of(embed, config.window_size) if config.enable_fusion else None
        return cls(config.patch_size, config.window_size, scale, shift, kernel, after, fusion)

    def tokens(self, patches: torch.Tensor) -> Tokens:
        return self.kernel(patches.to(self.kernel.weight.dtype))

    def normed(self, tokens: Tokens) -> Tokens:
        return self.norm(tokens) if self.norm else tokens


@dataclass(frozen=True)
class _Block:
    """A transformer layer of Swin's (Liu et al. 2021, eq. 3): attention within groups, then a perceptron a token."""

    norm: _Norm
    query_key_value: _Linear
    bias: torch.Tensor  # [H, S, S] by relative position
    out: _Linear
    norm_after: _Norm
    widen: _Linear
    narrow: _Linear

    @classmethod
    def of(cls, layer: Any, dtype: torch.dtype) -> _Block:
        attention = layer.attention.self
        table, index = attention.relative_position_bias_table, attention.relative_position_index  # [225, H], [S, S]
        return cls(
            norm=_Norm.of(layer.layernorm_before, dtype),
            query_key_value=_Linear.of(dtype, attention.query, attention.key, attention.value),
            bias=table[index.flatten()].view(*index.shape, -1).permute(2, 0, 1).to(dtype).contiguous(),
            out=_Linear.of(dtype, layer.attention.output.dense),
            norm_after=_Norm.of(layer.layernorm_after, dtype),
            widen=_Linear.of(dtype, layer.intermediate.dense),
            narrow=_Linear.of(dtype, layer.output.dense),
        )

    def packed(self) -> _Block:
        query_key_value, out = self.query_key_value.packed(), self.out.packed()
        widen, narrow = self.widen.packed(), self.narrow.packed()
        return _Block(self.norm, query_key_value, self.bias, out, self.norm_after, widen, narrow)

    def __call__(self, tokens: Tokens, borders: Sequence[Border]) -> Tokens:
        tokens = tokens + self.out(self._attention(self.query_key_value(self.norm(tokens)), borders))
        return tokens + self.narrow(self.widen.gelu(self.norm_after(tokens)))

    def _attention(self, query_key_value: torch.Tensor, borders: Sequence[Border]) -> Tokens:
        parts = []
        groups = torch.split(query_key_value, [border.num_groups for border in borders])
        for part, border in zip(groups, borders, strict=True):
            # [g, B, S, 3 · C] → 3 × [g · B, H, S, C / H], where they lie
            query, key, value = (
                torch.unflatten(one.flatten(0, 1), -1, (len(self.bias), -1)).transpose(1, 2)
                for one in part.chunk(3, dim=-1)
            )
            bias = self.bias if border.mask is None else self.bias + border.mask.to(self.bias.dtype)
            parts.append(_attended(query, key, value, bias).transpose(1, 2).flatten(2))  # [g · B, S, C]
        return torch.cat(parts).view(*query_key_value.shape[:3], -1)


def _attended(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    if bias.requires_grad:  # what torch itself does then, without its precautions for rows that attend to nothing
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2) + bias
        return scores.softmax(dim=-1) @ value
    return functional.scaled_dot_product_attention(query, key, value, bias[None])


@dataclass(frozen=True)
class _Stage:
    blocks: Sequence[_Block]
    merge_norm: _Norm | None  # the last stage merges nothing
    merge: _Linear | None

    @classmethod
    def of(cls, layer: Any, dtype: torch.dtype) -> _Stage:
        blocks, down = [_Block.of(block, dtype) for block in layer.blocks], layer.downsample
        if down is None:
            return cls(blocks, None, None)
        return cls(blocks, _Norm.of(down.norm, dtype), _Linear.of(dtype, down.reduction))

    def packed(self) -> _Stage:
        blocks = [block.packed() for block in self.blocks]
        return _Stage(blocks, self.merge_norm, self.merge and self.merge.packed())

    def __call__(self, tokens: Tokens, order: StageOrder) -> Tokens:
        for block, how in zip(self.blocks, order.blocks, strict=True):
            tokens = block(how.arrival(tokens) if how.arrival else tokens, how.borders)
        if self.merge and self.merge_norm and order.merging:
            children = torch.unflatten(order.merging(tokens), 2, (-1, 4)).flatten(
                3
            )  # [g, B, 4 · S, C] → [g, B, S, 4 · C]
            return self.merge(self.merge_norm(children))  # [g, B, S, 2 · C]
        return tokens


def _check_shape(reference: Any) -> None:
    config = reference.config
    group = config.window_size * config.patch_size
    fits = NUM_MELS % group == 0 and IMAGE_SIDE % (group << (len(config.depths) - 1)) == 0
    if [*config.patch_stride] != [config.patch_size] * 2 or not fits:
        raise ModelError(
            "The model's audio tower cuts its image into patches as CLAP's doesn't: use a CLAP checkpoint."
        )
    for name, value in _KNOWN_SHAPE.items():
        if (found := getattr(config, name)) != value:
            raise ModelError(
                f"The model's audio tower has {name} {found}, where CLAP has {value}: use a CLAP checkpoint."
            )
