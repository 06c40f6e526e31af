"""ClapEncoder: windows and texts → unit-norm embeddings.

A checkpoint is any CLAP in transformers' layout, or a `DualEncoder` of other towers: a local folder, a hub id
(`laion/clap-htsat-unfused`, `-fused`, `larger_clap_*`), or `mini`, the small one inside this package. Weights are read
from safetensors only.

An embedding depends on nothing but the samples: there is no random crop, no random `is_longer` (a 10 s window is never
«longer»), and no influence of the batch. A recording has one embedding for each of its windows; an encoder that is
loaded with `fusion` gives a single one for the whole recording.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import ThreadpoolController

from clapboard.audio.four_mels import FourMels, batched, four_mels
from clapboard.audio.levels import NUM_BANDS, NUM_ROWS, levels
from clapboard.audio.log_mel import LogMel
from clapboard.audio.pieces import Condition
from clapboard.audio.windows import (
    SAMPLE_RATE,
    WINDOW_SAMPLES,
    Span,
    Waveform,
    Window,
    blocks,
    piece_blocks,
    window_waveform,
    windows,
)
from clapboard.errors import ModelError
from clapboard.model.batch_size import FittingBatchSize, fastest_batch_size
from clapboard.model.checkpoints import (
    checkpoint_folder,
    fingerprint,
    load_log_mel,
    load_model,
    load_tokenizer,
)
from clapboard.model.device import Arithmetic, Dtype, dtype_reason, find_device, serving_dtype
from clapboard.model.frame_scores import FrameScores
from clapboard.model.htsat.engines import AudioTower, Engine, HasThreads, load_int8_tower
from clapboard.model.int8 import Calibration
from clapboard.model.texts import TextEncoder
from clapboard.model.towers import FrameGrid, engine_reason, load_tower, probe_windows
from clapboard.suggest.scoring import mean_direction

if TYPE_CHECKING:
    from clapboard.model.checkpoints import Clap

Embeddings = npt.NDArray[np.float32]
"""Unit-norm rows `[N, D]`, float32."""

Embedding = npt.NDArray[np.float32]
"""One such row `[D]`."""

View = Window | FourMels
"""The part of a recording that one embedding describes: a window or, with fusion, the whole of it."""

_BATCH_SIZE_ON_CPU = 16

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class WindowFrames:
    """Embeddings of windows `[N, D]` and of their frames `[N, T, D]` in the order of time, float32, of norm 1.

    `levels` `[N, 200, 16]` are how loud the windows are, in dB, see `audio.levels`.
    """

    embeddings: Embeddings
    frames: npt.NDArray[np.float32]
    levels: npt.NDArray[np.float32]


@dataclass(frozen=True)
class EncoderIdentity:
    """What names an encoder: `model` as the operator wrote it, `version` a hash over all that decides an embedding.

    `dim` is the length of an embedding, `logit_scale` the factor from cosine to logit.
    """

    model: str
    version: str
    dtype: str
    dim: int
    logit_scale: float


class ClapEncoder:
    """A CLAP checkpoint on a device. Threads may share it: forward passes take turns."""

    def __init__(
        self,
        model: Clap,
        tokenizer: Any,
        log_mel: LogMel,
        tower: AudioTower,
        identity: EncoderIdentity,
        *,
        batch_size: int = _BATCH_SIZE_ON_CPU,
        fusion: bool = False,
        computing: str = "",
        frame_scores: FrameScores | None = None,
    ) -> None:
        """`computing` says what the device can, by what the tower is computed, and why.

        `frame_scores` is what the checkpoint learnt about frames; None if it learnt nothing about them.
        """
        self.identity = identity
        self.frame_scores = frame_scores
        self.computing = computing
        self._batch = FittingBatchSize(batch_size)
        self.fusion = fusion
        self._model = model.eval()
        self._log_mel = log_mel
        self._tower = tower
        self._frame_grid = FrameGrid.of(model.audio_model.audio_encoder)
        self._turn = threading.Lock()
        self._texts = TextEncoder(self._model, tokenizer, self._turn)
        # Torch's threads would compete with those of a tower that has its own.
        self._openmp = ThreadpoolController() if isinstance(tower, HasThreads) else None

    @classmethod
    def load(
        cls,
        model: str,
        *,
        device: str = "auto",
        dtype: Dtype = "auto",
        engine: Engine = "auto",
        batch_size: int = 0,
        fusion: bool = False,
        arithmetic: Arithmetic | None = None,
        calibration: Path | None = None,
    ) -> Self:
        """The encoder of a hub id, a local folder, or `mini`, on the engine that `load_tower` chooses.

        With a batch size of 0, a good one is measured. With `fusion`, recordings are embedded as a whole, under another
        version. `arithmetic` is what the device computes, unless it is to be found out; `calibration` is the folder of
        this checkpoint's calibration, for int8. Raises `ModelError` if the
        checkpoint can't be found, fetched or read, isn't a CLAP, lacks weights or the fusion that is asked for, or if
        the device, dtype or engine can't be used.
        """
        place = find_device(device)
        arithmetic = arithmetic or Arithmetic.of(place)
        compute_dtype = serving_dtype(dtype, place, arithmetic)
        folder = checkpoint_folder(model)
        clap = load_model(model, folder).to(place)
        if fusion and not clap.config.audio_config.enable_fusion:
            raise ModelError(
                f"Model {model} has learnt no feature fusion: choose one that has, such as laion/clap-htsat-fused, or "
                "set CLAPBOARD_FUSION=false."
            )
        version = fingerprint(folder, fusion=fusion)
        int8 = Calibration.read(calibration, model, version) if compute_dtype == torch.int8 else None
        identity = EncoderIdentity(
            model=model,
            version=version,
            dtype=int8.dtype if int8 else str(compute_dtype).removeprefix("torch."),
            dim=clap.config.projection_dim,
            logit_scale=math.exp(clap.logit_scale_a.item()),
        )
        log_mel = load_log_mel(model, clap, folder).to(place)
        if compute_dtype == torch.bfloat16:  # it rounds decibels more coarsely than a float32 transform does
            log_mel.float()
        if int8 and calibration:
            model_file = int8.model_file(calibration)
            tower = load_int8_tower(clap.audio_model.audio_encoder, model_file, int8.probe(calibration), engine)
        else:
            probe = log_mel(probe_windows().to(place))
            tower = load_tower(clap.audio_model.audio_encoder, compute_dtype, probe, engine)
        computing = (
            f"{arithmetic}; it computes in {identity.dtype}, {dtype_reason(dtype, place, arithmetic)}; "
            f"engine {tower.engine}, {engine_reason(clap.audio_model.audio_encoder, engine, tower, place)}"
        )
        log.info(computing)
        encoder = cls(
            clap,
            load_tokenizer(model, folder),
            log_mel,
            tower,
            identity,
            fusion=fusion,
            computing=computing,
            frame_scores=FrameScores.read(folder, model, identity.dim),
        )
        encoder.batch_size = batch_size or encoder._fastest_batch_size()
        return encoder

    @property
    def batch_size(self) -> int:
        """How many windows go through the device at once, at the moment."""
        return self._batch.size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self._batch = FittingBatchSize(size)

    @property
    def model(self) -> Clap:
        """The weights, for training."""
        return self._model

    @property
    def log_mel(self) -> LogMel:
        """Windows `[N, 480000]` → log-mel `[N, 1001, 64]` as in the checkpoint's training."""
        return self._log_mel

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self._model.device

    @property
    def logit_scale(self) -> float:
        """The factor from cosine to logit that the checkpoint has learnt."""
        return self.identity.logit_scale

    @property
    def num_frames(self) -> int:
        """T, the number of frames of a window."""
        return self._frame_grid.num_frames

    @property
    def frame_s(self) -> float:
        """The length of a frame in seconds. PANN-14's frames end a little before their window, all others with it."""
        return self._frame_grid.frame_samples / SAMPLE_RATE

    def embed_windows(self, waveforms: Waveform | Sequence[Waveform]) -> Embeddings:
        """Audio embeddings `[N, D]` of windows `[N, 480000]`, in batches that the device's memory can hold.

        When memory runs out, the batch is tried again in halves; later batches grow again. Raises `ModelError` if
        not even one window fits, and `ValueError` for windows of another shape.
        """
        _check_windows(waveforms)
        return self._in_batches(self._forward_audio, waveforms)

    def embed_windows_with_frames(self, waveforms: Waveform | Sequence[Waveform]) -> WindowFrames:
        """The embeddings that `embed_windows` gives, and those of the windows' frames from the same pass.

        A frame is what the tower's last layer has at that time, put through the projection of whole windows. Fused
        checkpoints, too, get windows alone. Raises what `embed_windows` raises.
        """
        _check_windows(waveforms)
        dim, num_levels = self.identity.dim, NUM_ROWS * NUM_BANDS
        num_values = (1 + self.num_frames) * dim
        rows = self._in_batches(self._forward_frames, waveforms, num_values + num_levels)
        return WindowFrames(
            np.ascontiguousarray(rows[:, :dim]),
            rows[:, dim:num_values].reshape(-1, self.num_frames, dim),
            rows[:, num_values:].reshape(-1, NUM_ROWS, NUM_BANDS),
        )

    def views(
        self,
        path: Path,
        *,
        name: str = "",
        span: Span | None = None,
        channel: str = "",
        longest_s: float = math.inf,
        condition: Condition | None = None,
    ) -> Iterator[View]:
        """The parts of an audio file to embed, in order: its windows or, with fusion, the whole of it.

        With a `span`, that piece is treated as if it were the whole file. Errors call the file `name`; `channel`,
        `longest_s` and `condition` are as in `audio.windows.blocks`. Raises `AudioError`, at the first part that
        can't be read, if the file isn't audio that can be used.
        """
        if self.fusion:
            pieces = piece_blocks(path, name=name, span=span, channel=channel, longest_s=longest_s, condition=condition)
            yield self._whole(pieces, name or path.name)
        else:
            yield from windows(path, name=name, span=span, channel=channel, longest_s=longest_s, condition=condition)

    def embed_views(self, views: Sequence[View]) -> Embeddings:
        """Embeddings `[N, D]` of what `views` gave, in batches like those of `embed_windows`."""
        if self.fusion:
            return self._in_batches(self._forward_mels, [view for view in views if isinstance(view, FourMels)])
        return self.embed_windows([view.waveform for view in views if isinstance(view, Window)])

    def embed_file(
        self, path: Path, *, channel: str = "", longest_s: float = math.inf, condition: Condition | None = None
    ) -> Embeddings:
        """Embeddings `[W, D]` of an audio file's views; the file is read and embedded a batch at a time.

        `channel`, `longest_s` and `condition` are as in `audio.windows.blocks`. Raises `AudioError` if it isn't
        audio that can be used.
        """
        views = self.views(path, channel=channel, longest_s=longest_s, condition=condition)
        batches = iter(lambda: [*itertools.islice(views, self.batch_size)], [])
        return np.concatenate([self.embed_views(batch) for batch in batches])

    def embed_recording(self, recording: Path | Waveform) -> Embeddings:
        """A single embedding `[D]` for a whole recording: a file, or samples `[T]`, mono at 48 kHz, of any length.

        A fused checkpoint, loaded with `fusion` or not, embeds its four mels (see `clapboard.audio.four_mels`). For any
        other it is the unit-norm mean of its windows' embeddings. Raises `AudioError` if it isn't audio that can be
        used.
        """
        if self._model.config.audio_config.enable_fusion:
            if isinstance(recording, Path):
                whole = self._whole(blocks(recording), recording.name)
            else:
                whole = self._whole([recording], "The recording")
            return self._in_batches(self._forward_mels, [whole])[0]
        if isinstance(recording, Path):
            return mean_direction(self.embed_file(recording))
        return mean_direction(self.embed_windows(window_waveform(recording)))

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """Text embeddings `[len(texts), D]`; those of the latest texts are remembered."""
        rows = self._texts.embed(texts)
        return np.stack(rows) if rows else np.zeros((0, self.identity.dim), np.float32)

    def _in_batches(
        self,
        forward: Callable[[Any], torch.Tensor],
        inputs: Waveform | Sequence[Any],
        num_values: int = 0,
    ) -> Embeddings:
        """What `forward` gives for the inputs, a batch at a time; batches get smaller when memory runs out.

        It gives `num_values` for one input, by default D.
        """
        parts = []
        done = 0
        while done < len(inputs):
            part = inputs[done : done + self.batch_size]
            try:
                parts.append(forward(part))
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                self._shrink_batch(len(part))
                continue
            self._batch.fitted(len(part))
            done += len(part)
        empty = np.zeros((0, num_values or self.identity.dim), np.float32)
        return torch.cat(parts).cpu().numpy() if parts else empty

    def _whole(self, pieces: Iterable[Waveform], name: str) -> FourMels:
        with torch.inference_mode():
            return four_mels(pieces, self._log_mel, name=name)

    def _forward_audio(self, waveforms: Waveform | Sequence[Waveform]) -> torch.Tensor:
        """Windows → embeddings `[B, D]` on the device, which may still be computing them."""
        with self._forward_pass():
            features = self._log_mel(self._on_device(waveforms))  # [B, 480000] → [B, 1001, 64]
            return _unit_rows(self._model.audio_projection(self._tower(features)))

    def _forward_frames(self, waveforms: Waveform | Sequence[Waveform]) -> torch.Tensor:
        """Windows → `[B, (1 + T) · D + 200 · 16]`: the embedding of each, those of its frames, and its levels."""
        with self._forward_pass():
            features = self._log_mel(self._on_device(waveforms))
            output = self._tower.with_frames(features)
            embeddings = _unit_rows(self._model.audio_projection(output.pooled))
            frames = _unit_rows(self._model.audio_projection(output.frames))  # [B, T, C] → [B, T, D]
            loudness = torch.from_numpy(levels(features.cpu().numpy())).to(frames.device)
            return torch.cat([embeddings, frames.flatten(1), loudness.flatten(1)], dim=1)

    def _forward_mels(self, recordings: Sequence[FourMels]) -> torch.Tensor:
        with self._forward_pass():
            return _unit_rows(self._model.audio_projection(self._tower(*batched(recordings))))

    @contextlib.contextmanager
    def _forward_pass(self) -> Iterator[None]:
        one_thread = self._openmp.limit(limits=1, user_api="openmp") if self._openmp else contextlib.nullcontext()
        with self._turn, torch.inference_mode(), one_thread:
            yield

    def _on_device(self, waveforms: Waveform | Sequence[Waveform]) -> torch.Tensor:
        # Torch copies them on all cores; from pinned memory, a GPU fetches them while it computes.
        rows = [torch.from_numpy(np.require(waveform, np.float32, ["C", "W"])) for waveform in waveforms]
        on_gpu = self.device.type == "cuda"
        batch = torch.empty(len(rows), WINDOW_SAMPLES, pin_memory=on_gpu)
        return torch.stack(rows, out=batch).to(self.device, non_blocking=on_gpu)

    def _fastest_batch_size(self) -> int:
        if self.device.type != "cuda":
            return _BATCH_SIZE_ON_CPU

        def seconds(size: int) -> float | None:
            batch = np.zeros((size, WINDOW_SAMPLES), np.float32)
            try:
                self._forward_audio(batch).cpu()  # to warm up
                start = time.perf_counter()
                self._forward_audio(batch).cpu()
            except torch.OutOfMemoryError:
                return None
            return time.perf_counter() - start

        return fastest_batch_size(seconds)

    def _shrink_batch(self, size: int) -> None:
        """Halve the batch size after a batch of `size` didn't fit."""
        if size == 1:
            raise ModelError(
                f"Device {self.device} has too little memory for one window of {self.identity.model}: free some, or "
                "choose a smaller model or another device."
            )
        self._batch.shrink(size)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _check_windows(waveforms: Waveform | Sequence[Waveform]) -> None:
    for waveform in waveforms:
        if waveform.shape != (WINDOW_SAMPLES,):
            raise ValueError(f"a window must be [{WINDOW_SAMPLES}], not {list(waveform.shape)}")


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _unit_rows(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors.float(), dim=-1)
