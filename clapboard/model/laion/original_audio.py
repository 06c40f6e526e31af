"""The audio embeddings of LAION's code, computed from its own weights by their own names.

Its only purpose is to check conversions. So it shares nothing with the towers that serve, not even the log-mel's
filters if the checkpoint brings its own. As in Swin, tokens lie row by row, and every block rolls them and cuts them
into squares. It is slow.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from clapboard.audio.log_mel import FLOOR, HOP_SAMPLES, LogMel
from clapboard.model.laion.checkpoint import MEL, STFT, State, Towers

_FRAMES, _STRETCHES = 1024, 4


def log_mel(state: State, towers: Towers, windows: torch.Tensor) -> torch.Tensor:
    """Windows `[B, 480000]` → log-mel `[B, 1001, 64]` by the checkpoint's own filters, or by ours if it has none.

    LAION computes the features of fused checkpoints outside the model, with HTK's filters, whatever filters they bring.
    """
    if towers.is_fused or MEL not in state:
        return LogMel("htk" if towers.is_fused else "slaney")(windows)
    real, imaginary = (state[name][:, 0].double() for name in STFT)  # [513, 1024], kernels of a convolution
    margin = real.shape[-1] // 2
    padded = functional.pad(windows.double()[:, None], (margin, margin), mode="reflect")[:, 0]
    frames = padded.unfold(1, real.shape[-1], HOP_SAMPLES)  # [B, 1001, 1024]
    power = (frames @ real.T).square() + (frames @ imaginary.T).square()
    mel = power @ state[MEL].double()  # [B, 1001, 513] → [B, 1001, 64]
    return 10 * mel.clamp(min=FLOOR).log10().float()


def audio_embeddings(state: State, towers: Towers, mel: torch.Tensor, *, is_longer: bool = False) -> torch.Tensor:
    """Log-mel `[B, 1, 1001, 64]`, or four mels `[B, 4, 1001, 64]` of longer recordings → unit-norm `[B, D]`."""
    branch = _under("audio_branch.", state)
    pooled = _htsat(branch, towers, mel, is_longer) if towers.audio == "htsat" else _cnn14(branch, mel)
    return projected(_under("audio_projection.", state), pooled)


def projected(projection: State, pooled: torch.Tensor) -> torch.Tensor:
    """Two layers with a ReLU between them: `[B, C]` → unit-norm `[B, D]`."""
    hidden = functional.linear(pooled, projection["0.weight"], projection["0.bias"]).relu()
    return functional.normalize(functional.linear(hidden, projection["2.weight"], projection["2.bias"]), dim=-1)


def _cnn14(branch: State, mel: torch.Tensor) -> torch.Tensor:
    image, number = _batch_norm(branch, "bn0", mel.transpose(1, 3)).transpose(1, 3), 1
    while f"conv_block{number}.conv1.weight" in branch:
        if number > 1:
            image = functional.avg_pool2d(image, 2)
        for layer in (1, 2):
            image = functional.conv2d(image, branch[f"conv_block{number}.conv{layer}.weight"], padding=1)
            image = _batch_norm(branch, f"conv_block{number}.bn{layer}", image).relu()
        number += 1
    frames = image.mean(dim=3)  # [B, C, T, F] → [B, C, T]
    return _linear(branch, "fc1", frames.max(dim=2).values + frames.mean(dim=2)).relu()


def _htsat(branch: State, towers: Towers, mel: torch.Tensor, is_longer: bool) -> torch.Tensor:
    sizes = towers.audio_sizes
    normed = _batch_norm(branch, "bn0", mel.transpose(1, 3)).transpose(1, 3)
    tall = functional.interpolate(normed, (_FRAMES, mel.shape[-1]), mode="bicubic", align_corners=True)
    stretches = torch.unflatten(tall, 2, (_STRETCHES, -1)).transpose(
        3, 4
    )  # [B, channels, 4, 64, 256], one above another
    grid = _patches(branch, stretches.flatten(2, 3), is_longer)  # [B, C, side, side]
    tokens = grid.flatten(2).transpose(1, 2)  # [B, side², C]
    if sizes["enable_patch_layer_norm"]:
        tokens = _layer_norm(branch, "patch_embed.norm", tokens)
    for stage, depth in enumerate(sizes["depths"]):
        for block in range(depth):
            tokens = _swin_block(branch, f"layers.{stage}.blocks.{block}", tokens, sizes["window_size"], block % 2 == 1)
        if stage < len(sizes["depths"]) - 1:
            tokens = _merged(branch, f"layers.{stage}.downsample", tokens)
    return _layer_norm(branch, "norm", tokens).mean(dim=1)


def _patches(branch: State, image: torch.Tensor, is_longer: bool) -> torch.Tensor:
    kernel = branch["patch_embed.proj.weight"]
    side = kernel.shape[-1]
    whole = functional.conv2d(image[:, :1], kernel, branch["patch_embed.proj.bias"], stride=side)
    if not is_longer:
        return whole
    wide, bias = branch["patch_embed.mel_conv2d.weight"], branch["patch_embed.mel_conv2d.bias"]
    parts = [functional.conv2d(image[:, part : part + 1], wide, bias, stride=(side, 3 * side)) for part in (1, 2, 3)]
    local = torch.cat(parts, dim=3)  # three of a third of the width each, side by side
    local = functional.pad(local, (0, whole.shape[3] - local.shape[3]))
    # Attentional feature fusion (Dai et al. 2021, arXiv 2009.14082), doubled as LAION has it.
    both = whole + local
    of_all = both.mean(dim=(2, 3), keepdim=True)
    share = (_squeezed(branch, "local_att", 0, both) + _squeezed(branch, "global_att", 1, of_all)).sigmoid()
    return 2 * whole * share + 2 * local * (1 - share)


def _squeezed(branch: State, attention: str, first: int, grid: torch.Tensor) -> torch.Tensor:
    prefix = f"patch_embed.fusion_model.{attention}."
    for layer in (first, first + 3):
        kernel, bias = branch[f"{prefix}{layer}.weight"], branch[f"{prefix}{layer}.bias"]
        grid = _batch_norm(branch, f"{prefix}{layer + 1}", functional.conv2d(grid, kernel, bias))
        grid = grid.relu() if layer == first else grid
    return grid


def _swin_block(branch: State, block: str, tokens: torch.Tensor, window: int, shifted: bool) -> torch.Tensor:
    side = round(tokens.shape[1] ** 0.5)
    window, shift = min(window, side), window // 2 if shifted and side > window else 0
    grid = torch.unflatten(_layer_norm(branch, f"{block}.norm1", tokens), 1, (side, side)).roll(
        (-shift, -shift), (1, 2)
    )
    rows = torch.unflatten(grid, 1, (-1, window))  # [B, side, side, C] → [B, down, w, side, C]
    squares = torch.unflatten(rows, 3, (-1, window)).transpose(2, 3)  # [B, down, across, w, w, C]
    attended = _attention(
        branch, f"{block}.attn", squares.flatten(3, 4).flatten(1, 2), branch.get(f"{block}.attn_mask")
    )
    grid = attended.view(squares.shape).transpose(2, 3).flatten(3, 4).flatten(1, 2).roll((shift, shift), (1, 2))
    tokens = tokens + grid.flatten(1, 2)
    hidden = functional.gelu(_linear(branch, f"{block}.mlp.fc1", _layer_norm(branch, f"{block}.norm2", tokens)))
    return tokens + _linear(branch, f"{block}.mlp.fc2", hidden)


def _attention(branch: State, name: str, squares: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """`[B, squares, S, C]`, each square by itself; `mask` `[squares, S, S]` is of a shifted block."""
    table, index = branch[f"{name}.relative_position_bias_table"], branch[f"{name}.relative_position_index"]
    fused = torch.unflatten(_linear(branch, f"{name}.qkv", squares), -1, (3, table.shape[1], -1))
    query, key, value = fused.permute(3, 0, 1, 4, 2, 5)  # each [B, squares, H, S, C / H]
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + table[index].permute(2, 0, 1)
    if mask is not None:
        scores = scores + mask[:, None]
    return _linear(branch, f"{name}.proj", (scores.softmax(dim=-1) @ value).transpose(2, 3).flatten(3))


def _merged(branch: State, name: str, tokens: torch.Tensor) -> torch.Tensor:
    side = round(tokens.shape[1] ** 0.5)
    grid = torch.unflatten(tokens, 1, (side, side))
    four = [grid[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    together = _layer_norm(branch, f"{name}.norm", torch.cat(four, dim=-1).flatten(1, 2))
    return functional.linear(together, branch[f"{name}.reduction.weight"])


def _batch_norm(branch: State, name: str, values: torch.Tensor) -> torch.Tensor:
    mean, variance = branch[f"{name}.running_mean"], branch[f"{name}.running_var"]
    return functional.batch_norm(values, mean, variance, branch[f"{name}.weight"], branch[f"{name}.bias"])


def _layer_norm(branch: State, name: str, values: torch.Tensor) -> torch.Tensor:
    weight = branch[f"{name}.weight"]
    return functional.layer_norm(values, weight.shape, weight, branch[f"{name}.bias"])


def _linear(branch: State, name: str, values: torch.Tensor) -> torch.Tensor:
    return functional.linear(values, branch[f"{name}.weight"], branch.get(f"{name}.bias"))


def _under(prefix: str, state: State) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
