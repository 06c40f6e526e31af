"""One of two processes that share a batch: writes what it found. Started by `torchrun`, for test_contrastive.py."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from test_contrastive import (
    LONG_OF_FIRST,
    PORTIONS,
    batch,
    frame_task,
    fused_task,
    gradients,
    lengthened,
    task,
    with_mixtures,
)

from training.pretraining.processes import Processes

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    processes, _ = Processes.join(torch.device("cpu"))
    for portion in PORTIONS:
        shared = task(portion=portion, processes=processes)
        loss = shared.gradients(batch(processes), seed=0)
        norm = shared.model.audio_model.audio_encoder.batch_norm
        found = {"loss": loss, "gradients": gradients(shared), "mean": norm.running_mean, "variance": norm.running_var}
        torch.save(found, folder / f"{processes.rank}-{portion}.pt")
        for name, places in LONG_OF_FIRST.items():
            fused = fused_task(portion=portion, processes=processes)
            loss = fused.gradients(lengthened(batch(processes), [] if processes.rank else places), seed=0)
            found = {"loss": loss, "gradients": gradients(fused), "statistics": dict(fused.model.named_buffers())}
            torch.save(found, folder / f"{processes.rank}-{portion}-{name}.pt")
    shared = frame_task(processes=processes)
    loss = shared.gradients(with_mixtures(batch(processes), processes), seed=0)
    torch.save({"loss": loss, "gradients": gradients(shared)}, folder / f"{processes.rank}-frames.pt")
    processes.leave()
