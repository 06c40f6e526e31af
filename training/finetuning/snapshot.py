"""The label snapshot and config of a finetuning, kept beside its checkpoint: `snapshot.json`.

With it a finetuning can be repeated, and a later one knows which clips the checkpoint has learnt from.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from training.finetuning.spec import RunSpec

SNAPSHOT = "snapshot.json"


def write_snapshot(spec: RunSpec, checkpoint: Path) -> None:
    """Write what the checkpoint was made from. Audio files are named by their content alone."""
    clips = [clip.model_copy(update={"path": Path(clip.path.name)}) for clip in spec.clips]
    (checkpoint / SNAPSHOT).write_text(spec.model_copy(update={"clips": clips}).model_dump_json(), "utf-8")


def read_snapshot(checkpoint: Path) -> RunSpec | None:
    """What the checkpoint was made from; None if it was made before snapshots were kept."""
    file = checkpoint / SNAPSHOT
    return RunSpec.model_validate_json(file.read_text("utf-8")) if file.is_file() else None


def learnt_from(spec: RunSpec) -> set[str]:
    """The recordings, and the contents by their sha256, from which a checkpoint and those it came from have learnt."""
    clips = [clip for clip in spec.clips if not clip.is_test]
    return {*spec.learnt_before, *(clip.group for clip in clips), *(clip.path.stem for clip in clips)}


def remove_checkpoint(checkpoint: Path) -> None:
    """Delete a checkpoint's files, but keep its snapshot, from which it can be made again."""
    if not (checkpoint / SNAPSHOT).is_file():
        shutil.rmtree(checkpoint, ignore_errors=True)
        return
    (checkpoint / "manifest.json").unlink(missing_ok=True)  # first: it says that the rest is complete
    for file in checkpoint.iterdir():
        if file.name != SNAPSHOT:
            file.unlink()
