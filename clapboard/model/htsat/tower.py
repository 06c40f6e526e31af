"""HTSAT (Chen et al. 2022, arXiv 2202.00874): log-mel → one vector a window, written for speed.

It computes with the parameters of transformers' `ClapAudioEncoder` (the reference): when one of them learns, so does
this. What the reference rearranges in every block is arranged once here:

- Tokens lie in the order in which they attend to each other, `[G, B, S, C]`: G groups of 8 × 8 neighbours (the paper's
  «windows»; here a window is 10 s of sound), before the batch. So attention reads queries, keys and values where their
  product left them, and one bias serves all groups at the same kind of border.
- A block with shifted groups costs one gather, on the way in. The next block's gather, or the merging's, leads out.
- Query, key and value are one product.
- On a CPU, weights lie in oneDNN's own layout, and a few windows at a time go through, so that they stay in the cache.

Fused checkpoints also take a recording of any length, as four mels: see `clapboard.audio.four_mels`.

Dropout is always in inference mode, and so is BatchNorm, unless the reference is in training mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch

from clapboard.audio.log_mel import NUM_MELS
from clapboard.errors import ModelError
from clapboard.model.htsat.image import IMAGE_SIDE, Stretch, images_of, patches_of
from clapboard.model.htsat.layers import LayerNorm, Stage, Stem, Tokens
from clapboard.model.htsat.order import frame_order, stage_orders
from clapboard.model.tower_output import TowerOutput

_WINDOWS_AT_ONCE = 2  # on a CPU
_FIXED_CONFIG = {"num_mel_bins": NUM_MELS, "spec_size": IMAGE_SIDE, "hidden_act": "gelu"}


class Htsat:
    """The forward pass of a `ClapAudioEncoder`, as a whole or stage by stage, in `dtype`.

    It reads the reference's parameters in every pass, so gradients reach them; `frozen` gives a tower for serving.
    """

    engine = "torch"

    def __init__(self, reference: Any, dtype: torch.dtype = torch.float32) -> None:
        """Raises `ModelError` if the reference isn't shaped like CLAP's HTSAT."""
        _check_config(reference.config)
        self.dtype = dtype
        self._reference = reference
        config, device = reference.config, next(reference.parameters()).device
        self._stretch = Stretch.on(device)
        grid = IMAGE_SIDE // config.patch_size, config.window_size, config.depths
        self._orders = stage_orders(*grid, device)
        self._by_time = frame_order(*grid, device)
        self._kept: tuple[Stem, Sequence[Stage], LayerNorm] | None = None

    @property
    def num_stages(self) -> int:
        """The number of stages."""
        return len(self._orders)

    def frozen(self) -> Htsat:
        """A copy with the parameters as they are now, rearranged once: faster, and without gradients."""
        frozen = Htsat(self._reference, self.dtype)
        copy = Htsat(deepcopy(self._reference).eval().requires_grad_(False), self.dtype)
        with torch.no_grad():
            frozen._kept = copy._stem(), [stage.packed() for stage in copy._stages()], copy._norm()
        return frozen

    def __call__(self, features: torch.Tensor, is_longer: torch.Tensor | None = None) -> torch.Tensor:
        """Log-mel `[B, 1001, 64]`, or four mels as in `tokens` → pooled `[B, C]` float32."""
        return torch.cat([self.pooled(tokens) for tokens in self._last_tokens(features, is_longer)])

    def with_frames(self, features: torch.Tensor, is_longer: torch.Tensor | None = None) -> TowerOutput:
        """The same with the frames that are pooled."""
        return TowerOutput.joined(
            [self.pooled_with_frames(tokens) for tokens in self._last_tokens(features, is_longer)]
        )

    def tokens(self, features: torch.Tensor, is_longer: torch.Tensor | None = None) -> Tokens:
        """Log-mel `[B, 1001, 64]` → the first stage's tokens `[G, B, S, C]`.

        Or four mels `[B, 4, 1001, 64]`, the global one first; the local ones are fused into it where `is_longer` `[B]`
        is true, and ignored elsewhere. Raises `ValueError` if the checkpoint has learnt no fusion.
        """
        return self.tokens_of_normalised(self.normalised(features), is_longer)

    def tokens_of_normalised(
        self, normalised: torch.Tensor, is_longer: torch.Tensor | None = None, *, always_fuse: bool = False
    ) -> Tokens:
        """The same as `tokens`, from what `normalised` returned.

        With `always_fuse` the fusion layers run even if no clip is longer: in distributed training, their BatchNorms
        wait for those of the other processes.
        """
        if normalised.ndim == 3:
            return self.embed_patches(self._patches(normalised))
        stem = self._stem()
        tokens = stem.tokens(self._patches(normalised[:, 0]))
        if is_longer is not None and (always_fuse or is_longer.any()):
            if stem.fusion is None:
                raise ValueError("four mels are for checkpoints with feature fusion, which this one lacks")
            longer = is_longer.nonzero()[:, 0]
            local_images = images_of(self._stretch(normalised[longer, 1:].flatten(0, 1)))  # [b · 3, 256, 256]
            fused = stem.fusion(tokens.index_select(1, longer), local_images)
            tokens = tokens.index_copy(1, longer, fused)
        return stem.normalised(tokens)

    def normalised(self, features: torch.Tensor) -> torch.Tensor:
        """Log-mel `[…, 1001, 64]` through BatchNorm over the bands.

        It goes by the stored statistics, or by the batch's while the reference is in training mode.
        """
        if not self._kept and self._reference.training:
            # As rows: of other strides, torch 2.11's BatchNorm has a wrong gradient on CPUs.
            rows: torch.Tensor = self._reference.batch_norm(features.reshape(-1, NUM_MELS, 1, 1))
            return rows.view(features.shape)
        stem = self._stem()
        return torch.addcmul(stem.shift, features, stem.scale)

    def patches(self, features: torch.Tensor) -> torch.Tensor:
        """Log-mel `[B, 1001, 64]` → the image's patches `[G, B, S, P²]`, float32 like the decibels they come from."""
        return self._patches(self.normalised(features))

    def embed_patches(self, patches: torch.Tensor) -> Tokens:
        """Patches `[G, B, S, P²]` → the first stage's tokens `[G, B, S, C]`."""
        stem = self._stem()
        return stem.normalised(stem.tokens(patches))

    def run_stages(self, tokens: Tokens, first: int = 0, stop: int | None = None) -> Tokens:
        """Tokens through the stages from `first` to before `stop`; all but the last stage quarter their number."""
        for stage, order in zip(self._stages(first, stop), self._orders[first:stop], strict=True):
            tokens = stage(tokens, order)
        return tokens

    def pooled(self, tokens: Tokens) -> torch.Tensor:
        """The last stage's tokens, normalised, and their mean: `[B, C]` float32."""
        return self._norm()(tokens).float().mean(dim=(0, 2))

    def pooled_with_frames(self, tokens: Tokens) -> TowerOutput:
        """The same as `pooled`, and the last stage's normalised tokens in the order of time, averaged over frequency.

        Frames are `[B, T, C]` float32; all their T steps have the same number of tokens, so their mean is the pooled
        vector.
        """
        normalised = self._norm()(tokens).float()
        frames = self._by_time(normalised).mean(dim=2)  # [G, B, S, C] → [T, B, F, C] → [T, B, C]
        return TowerOutput(normalised.mean(dim=(0, 2)), frames.transpose(0, 1))

    def _last_tokens(self, features: torch.Tensor, is_longer: torch.Tensor | None) -> Iterator[Tokens]:
        """The last stage's tokens, a few windows at a time."""
        num_windows = _WINDOWS_AT_ONCE if self._kept and features.device.type == "cpu" else len(features)
        parts = torch.split(features, num_windows)
        marks = [None] * len(parts) if is_longer is None else torch.split(is_longer, num_windows)
        for part, mark in zip(parts, marks, strict=True):
            yield self.run_stages(self.tokens(part, mark))

    def _patches(self, normalised: torch.Tensor) -> torch.Tensor:
        stem = self._stem()
        return patches_of(self._stretch(normalised), stem.patch_side, stem.group_side)  # [B, 1001, 64] → [B, 1024, 64]

    def _stem(self) -> Stem:
        return self._kept[0] if self._kept else Stem.of(self._reference, self.dtype)

    def _stages(self, first: int = 0, stop: int | None = None) -> Sequence[Stage]:
        if self._kept:
            return self._kept[1][first:stop]
        return [Stage.of(layer, self.dtype) for layer in self._reference.layers[first:stop]]

    def _norm(self) -> LayerNorm:
        return self._kept[2] if self._kept else LayerNorm.of(self._reference.norm, self.dtype)


def _check_config(config: Any) -> None:
    group_pixels = config.window_size * config.patch_size
    divides = NUM_MELS % group_pixels == 0 and IMAGE_SIDE % (group_pixels << (len(config.depths) - 1)) == 0
    if [*config.patch_stride] != [config.patch_size] * 2 or not divides:
        raise ModelError(
            "The model's audio tower cuts its image into other patches than CLAP's does: use a CLAP checkpoint."
        )
    for name, fixed in _FIXED_CONFIG.items():
        if (value := getattr(config, name)) != fixed:
            raise ModelError(
                f"The model's audio tower has {name} {value}, where CLAP has {fixed}: use a CLAP checkpoint."
            )
