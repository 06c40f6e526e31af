"""ClapEncoder: windows and texts → unit-norm embeddings.

Any CLAP checkpoint in transformers' layout works: a local folder, a hub id (`laion/clap-htsat-unfused`, `-fused`,
`larger_clap_*`), or `mini`, the small one inside this package; and so does a `DualEncoder` of other towers. Weights are
read from safetensors alone.

An embedding depends on nothing but the samples: no random crop, no random `is_longer` (a 10 s window is never
«longer»), and no neighbour in the batch. A recording has one for each of its windows, or, by an encoder that is loaded
with `fusion`, a single one of the whole.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import ThreadpoolController

from clapboard.audio import (
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
from clapboard.batch_size import fastest_batch_size
from clapboard.errors import ModelError
from clapboard.features import LogMel
from clapboard.fusion import FourMels, batched, four_mels
from clapboard.htsat.engines import AudioTower, Engine, HasThreads
from clapboard.memory import Memory
from clapboard.pretrained import checkpoint_folder, fingerprint, load_log_mel, load_model, load_tokenizer, max_tokens
from clapboard.scoring import mean_direction
from clapboard.towers import load_tower

if TYPE_CHECKING:
    from clapboard.pretrained import Clap

Embeddings = npt.NDArray[np.float32]
"""Unit-norm rows `[N, D]`, float32."""

View = Window | FourMels
"""What one embedding of a recording is made of."""

_TEXTS_AT_ONCE = 64
_TEXTS_REMEMBERED = 10_000
_BATCH_SIZE_ON_CPU = 16


@dataclass(frozen=True)
class EncoderIdentity:
    """What names an encoder: `model` as the operator wrote it, `version` a hash of all that decides an embedding."""

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
    ) -> None:
        self.identity = identity
        self.batch_size = batch_size
        self.fusion = fusion
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._log_mel = log_mel
        self._tower = tower
        self._turn = threading.Lock()
        # Beside a tower that keeps threads of its own, torch's would only get into their way.
        self._openmp = ThreadpoolController() if isinstance(tower, HasThreads) else None
        self._texts: Memory[str] = Memory(_TEXTS_REMEMBERED)

    @classmethod
    def load(
        cls,
        model: str,
        *,
        device: str = "auto",
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        engine: Engine = "auto",
        batch_size: int = 0,
        fusion: bool = False,
    ) -> Self:
        """The encoder of a hub id, a local folder, or `mini`, on the engine that `load_tower` finds.

        A batch size of 0 is found by itself. With `fusion`, recordings are embedded as a whole, and the version is
        another. Raises `ModelError` if the checkpoint can't be found, reached or read, is no CLAP, lacks weights or
        the fusion that is asked for, or if the engine can't be used.
        """
        folder = checkpoint_folder(model)
        place = find_device(device)
        half = serving_dtype(dtype, place) == torch.bfloat16
        clap = load_model(model, folder).to(place)
        if fusion and not clap.config.audio_config.enable_fusion:
            raise ModelError(
                f"Model {model} has learnt no feature fusion: choose one that has, such as laion/clap-htsat-fused, or "
                "set CLAPBOARD_FUSION=false."
            )
        identity = EncoderIdentity(
            model=model,
            version=fingerprint(folder, fusion=fusion),
            dtype="bfloat16" if half else "float32",
            dim=clap.config.projection_dim,
            logit_scale=math.exp(clap.logit_scale_a.item()),
        )
        log_mel = load_log_mel(model, clap, folder).to(place)
        if half:  # what bfloat16 makes of decibels is coarser than float32's error in them
            log_mel.float()
        reference, computed_in = clap.audio_model.audio_encoder, torch.bfloat16 if half else torch.float32
        tower = load_tower(reference, computed_in, log_mel(_unlike_windows().to(place)), engine)
        encoder = cls(clap, load_tokenizer(model, folder), log_mel, tower, identity, fusion=fusion)
        encoder.batch_size = batch_size or encoder._fastest_batch_size()
        return encoder

    @property
    def model(self) -> Clap:
        """The weights, for training."""
        return self._model

    @property
    def log_mel(self) -> LogMel:
        """Windows `[N, 480000]` → the features that the checkpoint was trained on."""
        return self._log_mel

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self._model.device

    @property
    def logit_scale(self) -> float:
        """Factor from cosine to logit, as learnt by the checkpoint."""
        return self.identity.logit_scale

    def embed_windows(self, waveforms: Waveform | Sequence[Waveform]) -> Embeddings:
        """Audio embeddings of windows `[N, 480000]` → `[N, D]`, in batches that the device's memory can hold.

        When memory runs out, the batch size is halved, for good, and the batch is done again.
        Raises `ModelError` if not even one window fits.
        """
        for waveform in waveforms:
            if waveform.shape != (WINDOW_SAMPLES,):
                raise ValueError(f"a window must be [{WINDOW_SAMPLES}], not {list(waveform.shape)}")
        return self._in_batches(self._forward_audio, waveforms)

    def views(self, path: Path, *, name: str = "", span: Span | None = None) -> Iterator[View]:
        """What the embeddings of an audio file are made of, in order: its windows or, with fusion, the whole of it.

        With a `span` it is as if that piece were the whole file. Errors call it `name`. Raises `AudioError` if it is no
        audio that can be used, on the first that can't be given.
        """
        if self.fusion:
            yield self._whole(piece_blocks(path, name=name, span=span), name or path.name)
        else:
            yield from windows(path, name=name, span=span)

    def embed_views(self, views: Sequence[View]) -> Embeddings:
        """Embeddings `[N, D]` of views, in batches like those of `embed_windows`."""
        if self.fusion:
            return self._in_batches(self._forward_mels, [view for view in views if isinstance(view, FourMels)])
        return self.embed_windows([view.waveform for view in views if isinstance(view, Window)])

    def embed_file(self, path: Path) -> Embeddings:
        """Embeddings `[W, D]` of an audio file's views, which is read and embedded piece by piece.

        Raises `AudioError` if it is no audio that can be used.
        """
        views = self.views(path)
        batches = iter(lambda: [*itertools.islice(views, self.batch_size)], [])
        return np.concatenate([self.embed_views(batch) for batch in batches])

    def embed_recording(self, recording: Path | Waveform) -> Embeddings:
        """The one embedding `[D]` of a whole recording: of a file, or of samples `[T]`, mono at 48 kHz, of any length.

        A fused checkpoint's is that of its four mels (see `clapboard.fusion`), loaded with `fusion` or not. Any other's
        is the unit-norm mean of its windows' embeddings. Raises `AudioError` if it is no audio that can be used.
        """
        if self._model.config.audio_config.enable_fusion:
            whole = (
                self._whole(blocks(recording), recording.name)
                if isinstance(recording, Path)
                else self._whole([recording], "The recording")
            )
            return self._in_batches(self._forward_mels, [whole])[0]
        if isinstance(recording, Path):
            return mean_direction(self.embed_file(recording))
        return mean_direction(self.embed_windows(window_waveform(recording)))

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """Text embeddings `[len(texts), D]`; those that were asked for lately are remembered."""
        found = self._texts.known(texts)
        missing = sorted({text for text in texts if text not in found})
        for start in range(0, len(missing), _TEXTS_AT_ONCE):
            batch = missing[start : start + _TEXTS_AT_ONCE]
            computed = dict(zip(batch, self._forward_text(batch), strict=True))
            self._texts.keep(computed)
            found |= computed
        rows = [found[text] for text in texts]
        return np.stack(rows) if rows else np.zeros((0, self.identity.dim), np.float32)

    def _in_batches(self, forward: Callable[[Any], torch.Tensor], inputs: Waveform | Sequence[Any]) -> Embeddings:
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
            done += len(part)
        return torch.cat(parts).cpu().numpy() if parts else np.zeros((0, self.identity.dim), np.float32)

    def _whole(self, pieces: Iterable[Waveform], name: str) -> FourMels:
        with torch.inference_mode():
            return four_mels(pieces, self._log_mel, name=name)

    def _forward_audio(self, waveforms: Waveform | Sequence[Waveform]) -> torch.Tensor:
        """`[B, D]` on the device, which may be at work on it still."""
        with self._at_work():
            features = self._log_mel(self._on_device(waveforms))  # [B, 480000] → [B, 1001, 64]
            return _unit_rows(self._model.audio_projection(self._tower(features)))

    def _forward_mels(self, recordings: Sequence[FourMels]) -> torch.Tensor:
        with self._at_work():
            return _unit_rows(self._model.audio_projection(self._tower(*batched(recordings))))

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        alone = self._openmp.limit(limits=1, user_api="openmp") if self._openmp else contextlib.nullcontext()
        with self._turn, torch.inference_mode(), alone:
            yield

    def _on_device(self, waveforms: Waveform | Sequence[Waveform]) -> torch.Tensor:
        # Torch gathers them on all cores; from pinned memory, a GPU fetches them while it computes.
        rows = [torch.from_numpy(np.require(waveform, np.float32, ["C", "W"])) for waveform in waveforms]
        on_gpu = self.device.type == "cuda"
        batch = torch.empty(len(rows), WINDOW_SAMPLES, pin_memory=on_gpu)
        return torch.stack(rows, out=batch).to(self.device, non_blocking=on_gpu)

    def _forward_text(self, texts: list[str]) -> Embeddings:
        longest = max_tokens(self._model)
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        with self._turn, torch.inference_mode():
            output = self._model.get_text_features(
                input_ids=tokens["input_ids"].to(self.device), attention_mask=tokens["attention_mask"].to(self.device)
            )
            return np.asarray(_unit_rows(output.pooler_output).cpu())

    def _fastest_batch_size(self) -> int:
        if self.device.type != "cuda":
            return _BATCH_SIZE_ON_CPU

        def seconds(size: int) -> float | None:
            batch = np.zeros((size, WINDOW_SAMPLES), np.float32)
            try:
                self._forward_audio(batch).cpu()  # to warm up
                began = time.perf_counter()
                self._forward_audio(batch).cpu()
            except torch.OutOfMemoryError:
                return None
            return time.perf_counter() - began

        return fastest_batch_size(seconds)

    def _shrink_batch(self, tried: int) -> None:
        if tried == 1:
            raise ModelError(
                f"Device {self.device} has too little memory for one window of {self.identity.model}: free some, or "
                "choose a smaller model or another device."
            )
        self.batch_size = max(1, tried // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` is a GPU where there is one. Raises `ModelError` for one that isn't there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"Device {name} is unknown: set CLAPBOARD_DEVICE to auto, cpu, cuda or cuda:N.") from None
    if device.type not in {"cpu", "cuda"}:
        raise ModelError(f"Device {name} is not supported: set CLAPBOARD_DEVICE to auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ModelError(f"Device {name} is not there: set CLAPBOARD_DEVICE to auto, cpu or a GPU that exists.")
    return device


def serving_dtype(name: str, device: torch.device) -> torch.dtype:
    """What embeddings are computed in: with `auto` bfloat16 on a GPU, and exactly on a CPU."""
    return torch.bfloat16 if name == "bfloat16" or (name == "auto" and device.type == "cuda") else torch.float32


def training_dtype(name: str, device: torch.device) -> torch.dtype:
    """What training computes in: with `auto` bfloat16 on a CPU too, if it has instructions for it."""
    found = torch.cpu.get_capabilities()
    has_bfloat16 = device.type == "cpu" and (found.get("amx_bf16") or found.get("avx512_bf16"))
    return torch.bfloat16 if name == "auto" and has_bfloat16 else serving_dtype(name, device)


def _unlike_windows() -> torch.Tensor:
    """`[3, 480000]`: noise, a rising tone that dies away, and silence."""
    rng, time_s = np.random.default_rng(0), np.arange(WINDOW_SAMPLES) / SAMPLE_RATE
    tone = np.exp(-time_s) * np.sin(2 * np.pi * (100 + 300 * time_s) * time_s)
    sounds = [rng.uniform(-0.5, 0.5, WINDOW_SAMPLES), tone, np.zeros(WINDOW_SAMPLES)]
    return torch.from_numpy(np.stack(sounds).astype(np.float32))


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _unit_rows(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors.float(), dim=-1)
