"""DualEncoder: any audio tower with any text tower, saved and loaded like transformers' own models.

It can be used like transformers' `ClapModel`, by the same names: `audio_model.audio_encoder`, the two-layer
projections, `get_audio_features`, `get_text_features`, and both temperatures. HTSAT with RoBERTa is a `ClapModel`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import (
    BertConfig,
    BertModel,
    ClapAudioConfig,
    ClapAudioModel,
    CLIPTextConfig,
    CLIPTextModel,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling

from clapboard.errors import ModelError
from clapboard.model.cnn14 import WIDTHS, Cnn14


class Cnn14Config(PretrainedConfig):  # type: ignore[misc]
    """The shape of PANN-14."""

    model_type = "cnn14"
    base_config_key = "audio_config"

    def __init__(
        self,
        widths: list[int] | tuple[int, ...] = WIDTHS,
        block_dropout: float = 0.2,
        dropout: float = 0.5,
        **options: Any,
    ) -> None:
        self.widths = list(widths)
        self.block_dropout = block_dropout
        self.dropout = dropout
        self.hidden_size = self.widths[-1]
        self.enable_fusion = False
        super().__init__(
            **{key: value for key, value in options.items() if key not in {"hidden_size", "enable_fusion"}}
        )


class Cnn14Model(nn.Module):
    """PANN-14 as a model's `audio_model`."""

    def __init__(self, config: Cnn14Config) -> None:
        super().__init__()
        self.audio_encoder = Cnn14(config.widths, block_dropout=config.block_dropout, dropout=config.dropout)

    def forward(self, input_features: torch.Tensor, is_longer: torch.Tensor | None = None) -> Any:
        """Log-mel `[B, 1, 1001, 64]` → `pooler_output` `[B, C]`; there is no fusion: `is_longer` is ignored."""
        return BaseModelOutputWithPooling(pooler_output=self.audio_encoder(input_features[:, 0]))


AUDIO_TOWERS = {"clap_audio_model": (ClapAudioConfig, ClapAudioModel), "cnn14": (Cnn14Config, Cnn14Model)}
TEXT_TOWERS = {
    "roberta": (RobertaConfig, RobertaModel),
    "bert": (BertConfig, BertModel),
    "clip_text_model": (CLIPTextConfig, CLIPTextModel),
}
"""The config and model classes of towers, by `model_type`."""


class DualEncoderConfig(PretrainedConfig):  # type: ignore[misc]
    """Two towers' configs, each with its `model_type`, and the size of the space that they share."""

    model_type = "clapboard"

    def __init__(
        self,
        audio_config: PretrainedConfig | dict[str, Any] | None = None,
        text_config: PretrainedConfig | dict[str, Any] | None = None,
        projection_dim: int = 512,
        logit_scale_init_value: float = 1 / 0.07,
        **options: Any,
    ) -> None:
        """Raises `ModelError` for an unknown tower."""
        self.audio_config = _tower_config(audio_config, AUDIO_TOWERS, "clap_audio_model")
        self.text_config = _tower_config(text_config, TEXT_TOWERS, "roberta")
        self.projection_dim = projection_dim
        self.logit_scale_init_value = logit_scale_init_value
        super().__init__(**options)


class DualEncoder(PreTrainedModel):  # type: ignore[misc]
    """An audio tower and a text tower, each with a projection."""

    config_class = DualEncoderConfig
    base_model_prefix = "clapboard"
    main_input_name = "input_features"

    def __init__(self, config: DualEncoderConfig) -> None:
        super().__init__(config)
        audio, text = config.audio_config, config.text_config
        self.audio_model = AUDIO_TOWERS[audio.model_type][1](audio)
        self.text_model = TEXT_TOWERS[text.model_type][1](text)
        self.audio_projection = Projection(audio.hidden_size, config.projection_dim)
        self.text_projection = Projection(text.hidden_size, config.projection_dim)
        self.logit_scale_a = nn.Parameter(torch.tensor(math.log(config.logit_scale_init_value)))
        self.logit_scale_t = nn.Parameter(torch.tensor(math.log(config.logit_scale_init_value)))
        self.post_init()

    def get_audio_features(self, input_features: torch.Tensor, is_longer: torch.Tensor | None = None) -> Any:
        """The audio tower's output for log-mel `[B, channels, 1001, 64]`; `pooler_output` is unit-norm `[B, D]`."""
        output = self.audio_model(input_features=input_features, is_longer=is_longer)
        output.pooler_output = functional.normalize(self.audio_projection(output.pooler_output), dim=-1)
        return output

    def get_text_features(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> Any:
        """The text tower's output for tokens `[B, N]`; `pooler_output` is unit-norm `[B, D]`.

        As in LAION's code, the projection takes RoBERTa's and BERT's pooled first token, and CLIP's normalised state at
        the text's last token. `token_type_ids`, which tokenizers return too, are all the same and ignored.
        """
        output = self.text_model(input_ids=input_ids, attention_mask=attention_mask)
        if self.config.text_config.model_type == "clip_text_model":
            output.pooler_output = _last_token(output.last_hidden_state, attention_mask)
        output.pooler_output = functional.normalize(self.text_projection(output.pooler_output), dim=-1)
        return output

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise layers that aren't part of a transformers model as PANNs' code does: Xavier, and zero bias."""
        if isinstance(module, nn.Conv2d | nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, DualEncoder):
            init.constant_(module.logit_scale_a, math.log(self.config.logit_scale_init_value))
            init.constant_(module.logit_scale_t, math.log(self.config.logit_scale_init_value))
        else:
            super()._init_weights(module)


class Projection(nn.Module):
    """A tower's vectors `[B, C]` → `[B, D]`, in two layers."""

    def __init__(self, hidden_size: int, projection_dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(hidden_size, projection_dim)
        self.activation = nn.ReLU()
        self.linear2 = nn.Linear(projection_dim, projection_dim)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.linear2(self.activation(self.linear1(pooled)))


def _last_token(states: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """States `[B, N, C]` → `[B, C]`: that of each text's last token before its padding.

    transformers looks for a token with CLIP's own number, which other tokenizers lack, or use for something else.
    """
    if attention_mask is None:
        return states[:, -1]
    places = torch.arange(states.shape[1], device=states.device)
    last = (attention_mask * places).argmax(dim=1)
    return states[torch.arange(len(states), device=states.device), last]


def _tower_config(config: Any, towers: dict[str, tuple[Any, Any]], default: str) -> Any:
    if isinstance(config, PretrainedConfig):
        name = config.model_type
    else:
        sizes = dict(config or {})
        name = sizes.pop("model_type", default)
        config = towers[name][0](**sizes) if name in towers else None
    if name not in towers:
        raise ModelError(f"Tower {name} is unknown: choose one of {', '.join(towers)}.")
    return config
