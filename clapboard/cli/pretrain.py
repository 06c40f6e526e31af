"""`pretrain`: a CLAP of one's own, from scratch or from a checkpoint, on a data set of `data build`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clapboard.cli.output import AsJson, console, settings_with, write_json
from clapboard.errors import SettingsError
from clapboard.logs import set_up_logging

if TYPE_CHECKING:
    from clapboard.captions import Captioner
    from training.pretraining.run import UntrainedTowers


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command()(pretrain)


def pretrain(
    data: Annotated[Path, typer.Option(help="Folder of a data set made by `clapboard data build`.")],
    out: Annotated[Path, typer.Option(help="Folder for the run: state.pt, curves/ for TensorBoard, checkpoint/.")],
    model: Annotated[str | None, typer.Option(help="Checkpoint to go on from; else from scratch.")] = None,
    towers: Annotated[
        str | None, typer.Option(help="htsat or cnn14 + roberta, bert or clip, from scratch; else htsat+roberta.")
    ] = None,
    sizes: Annotated[Path | None, typer.Option(help="JSON: projection_dim, audio_sizes, text_sizes.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Hub id or folder; else learnt from the captions.")] = None,
    validation: Annotated[Path | None, typer.Option(help="Data set to measure retrieval on; selects nothing.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 45,
    batch_size: Annotated[int, typer.Option(help="Pairs in a step, over all processes.", min=2)] = 64,
    portion: Annotated[int, typer.Option(help="Pairs that go through at once; 0: all of a batch.", min=0)] = 0,
    rate: Annotated[float | None, typer.Option(help="Peak rate; else 1e-3, or 1e-5 from a checkpoint.")] = None,
    warmup: Annotated[float, typer.Option(help="Epochs in which the rate rises.", min=0)] = 2,
    averaging: Annotated[float, typer.Option(help="Share kept of the average a step.", min=0, max=1)] = 0.997,
    captions: Annotated[
        Literal["rules", "alone"], typer.Option(help="Where there are only tags: captions by rule, or tags alone.")
    ] = "rules",
    t5: Annotated[str | None, typer.Option(help="Text model that writes captions of tags: hub id or folder.")] = None,
    augment: Annotated[bool, typer.Option(help="Equaliser and SpecAugment.")] = True,
    threads: Annotated[int, typer.Option(help="Threads of each process that decode ahead.", min=1)] = 2,
    evaluate_every: Annotated[int, typer.Option(help="Epochs between two checkpoints.", min=1)] = 1,
    save_every: Annotated[int, typer.Option(help="Steps between two saved states.", min=1)] = 500,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Train on pairs of sounds and captions. Started again after a kill, it goes on, and ends with the same weights.

    On several GPUs: `torchrun --nproc-per-node N -m clapboard pretrain …`.
    """
    import torch

    from clapboard.clap import find_device
    from training.pretrain import Schedule
    from training.pretraining.processes import Processes
    from training.pretraining.run import Plan, run

    if rate is not None and not rate > 0:
        raise SettingsError(f"By a rate of {rate:g} nothing is learnt: choose one above 0.")
    start, captioner = _start(model, towers, sizes, tokenizer), _captioner(captions, t5)
    settings = settings_with()
    processes, device = Processes.join(find_device(settings.device))
    speaks = processes.rank == 0
    set_up_logging(settings.log_level if speaks else "ERROR", settings.secrets)
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    schedule = Schedule(
        epochs=epochs,
        seed=seed,
        peak_rate=rate if rate is not None else 1e-5 if model else 1e-3,
        warmup_epochs=min(warmup, epochs / 2),
        optimiser="adamw" if model else "muon",
        averaging=averaging,
        evaluate_every=evaluate_every,
        save_every=save_every,
    )
    plan = Plan(
        data=data,
        out=out,
        start=start,
        captioner=captioner,
        schedule=schedule,
        batch_size=batch_size,
        portion=portion,
        validation=validation,
        augment=augment,
        device=str(device),
        dtype=settings.dtype,
        threads=threads,
    )
    try:
        folder = run(plan, processes)
    finally:
        processes.leave()
    if speaks:
        _tell(folder, as_json)


def _tell(folder: Path, as_json: bool) -> None:
    if as_json:
        write_json({"checkpoint": str(folder)})
    else:
        console().print(f"{folder} is ready: use it by CLAPBOARD_MODEL or --model.", highlight=False)


def _start(model: str | None, towers: str | None, sizes: Path | None, tokenizer: str | None) -> str | UntrainedTowers:
    if model is None:
        return _towers(towers or "htsat+roberta", sizes, tokenizer)
    for option, given in {"--towers": towers, "--sizes": sizes, "--tokenizer": tokenizer}.items():
        if given is not None:
            raise SettingsError(f"Model {model} has a shape already: leave out {option}, or --model.")
    return model


def _towers(names: str, sizes: Path | None, tokenizer: str | None) -> UntrainedTowers:
    from training.pretraining.run import UntrainedTowers

    audio, _, text = names.partition("+")
    if audio not in {"htsat", "cnn14"} or text not in {"roberta", "bert", "clip"}:
        raise SettingsError(f"Towers “{names}” aren't known: write htsat or cnn14, a +, and roberta, bert or clip.")
    found = _read_sizes(sizes) if sizes else {}
    return UntrainedTowers(audio, text, tokenizer=tokenizer, **found)  # type: ignore[arg-type]


def _read_sizes(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"Sizes {file} can't be read as JSON: check the file.") from error
    kinds = {"projection_dim": int, "audio_sizes": dict, "text_sizes": dict}
    if not isinstance(found, dict) or not all(isinstance(found[key], kinds.get(key, ())) for key in found):
        raise SettingsError(
            f"Sizes {file} may hold projection_dim, a whole number, and audio_sizes and text_sizes, objects, alone."
        )
    return found


def _captioner(captions: str, t5: str | None) -> Captioner:
    from clapboard.captions import RULES, KeywordsAlone

    if t5 and captions == "alone":
        raise SettingsError("Tags alone leave nothing to a text model: leave out --t5, or --captions alone.")
    if t5:
        from clapboard.captions.t5 import T5Captioner
        from clapboard.captions.text_generator import TextGenerator

        return T5Captioner(TextGenerator.load(t5))
    return RULES if captions == "rules" else KeywordsAlone()
