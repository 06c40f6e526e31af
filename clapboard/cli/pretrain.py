"""`pretrain`: train a CLAP, from scratch or from a checkpoint, on a data set of `data build`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clapboard.cli.output import AsJson, console, settings_with, write_json
from clapboard.errors import SettingsError

if TYPE_CHECKING:
    from clapboard.labels.captions import Captioner
    from training.pretraining.run import UntrainedTowers


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command()(pretrain)


def pretrain(
    data: Annotated[Path, typer.Option(help="Folder of a data set made by `clapboard data build`.")],
    out: Annotated[Path, typer.Option(help="Folder for the run: state.pt, curves/ for TensorBoard, checkpoint/.")],
    model: Annotated[str | None, typer.Option(help="Checkpoint to start from; by default from scratch.")] = None,
    towers: Annotated[
        str | None,
        typer.Option(help="From scratch: htsat or cnn14, a +, and roberta, bert or clip; by default htsat+roberta."),
    ] = None,
    sizes: Annotated[
        Path | None, typer.Option(help="JSON file with projection_dim, audio_sizes and text_sizes.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Hub id or folder of a tokenizer; by default trained on the captions.")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Data set to measure retrieval on; it doesn't influence the training.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Number of epochs.", min=1)] = 45,
    batch_size: Annotated[int, typer.Option(help="Pairs per step, over all processes.", min=2)] = 64,
    portion: Annotated[int, typer.Option(help="Pairs computed at once; 0: the whole batch.", min=0)] = 0,
    rate: Annotated[
        float | None, typer.Option(help="Peak learning rate; by default 1e-3, or 1e-5 from a checkpoint.")
    ] = None,
    warmup: Annotated[float, typer.Option(help="Epochs during which the learning rate rises.", min=0)] = 2,
    averaging: Annotated[
        float, typer.Option(help="Decay of the weights' moving average, per step.", min=0, max=1)
    ] = 0.997,
    captions: Annotated[
        Literal["rules", "alone"],
        typer.Option(help="For sounds with tags only: make captions by rule, or use the tags alone."),
    ] = "rules",
    t5: Annotated[
        str | None, typer.Option(help="Let this text model write captions of tags: a hub id or folder.")
    ] = None,
    augment: Annotated[bool, typer.Option(help="Augment with a random equaliser and SpecAugment.")] = True,
    mixtures: Annotated[
        int, typer.Option(help="Mixtures of sounds at known times per step, to learn frames from; 0: none.", min=0)
    ] = 0,
    frame_weight: Annotated[
        float, typer.Option(help="Weight of the frame loss; the contrastive loss has 1.", min=0)
    ] = 1.0,
    threads: Annotated[int, typer.Option(help="Threads per process that decode ahead.", min=1)] = 2,
    evaluate_every: Annotated[int, typer.Option(help="Epochs between checkpoints.", min=1)] = 1,
    save_every: Annotated[int, typer.Option(help="Steps between saved states.", min=1)] = 500,
    seed: Annotated[int, typer.Option(help="Seed of all random choices.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Pretrain a CLAP on pairs of sounds and captions.

    Started again after it was killed, it continues and ends with the same weights.

    On several GPUs: `torchrun --nproc-per-node N -m clapboard pretrain …`.
    """
    import torch

    from clapboard.logs import set_up_logging
    from clapboard.model.device import find_device
    from training.pretrain import Schedule
    from training.pretraining.processes import Processes
    from training.pretraining.run import Plan, run

    if rate is not None and not rate > 0:
        raise SettingsError(f"A rate of {rate:g} learns nothing: choose one above 0.")
    start, captioner = _start(model, towers, sizes, tokenizer), _captioner(captions, t5)
    settings = settings_with(writes_for_others=True)
    processes, device = Processes.join(find_device(settings.device))
    is_first = processes.rank == 0
    set_up_logging(settings.log_level if is_first else "ERROR", settings.secrets)
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
        engine=settings.engine,
        threads=threads,
        mixtures=mixtures,
        frame_weight=frame_weight,
    )
    try:
        folder = run(plan, processes)
    finally:
        processes.leave()
    if is_first:
        _print(folder, as_json)


def _print(folder: Path, as_json: bool) -> None:
    if as_json:
        write_json({"checkpoint": str(folder)})
    else:
        console().print(f"{folder} is ready: use it with CLAPBOARD_MODEL or --model.", highlight=False)


def _start(model: str | None, towers: str | None, sizes: Path | None, tokenizer: str | None) -> str | UntrainedTowers:
    if model is None:
        return _towers(towers or "htsat+roberta", sizes, tokenizer)
    for option, value in {"--towers": towers, "--sizes": sizes, "--tokenizer": tokenizer}.items():
        if value is not None:
            raise SettingsError(f"Model {model} already has a shape: leave out {option}, or --model.")
    return model


def _towers(names: str, sizes: Path | None, tokenizer: str | None) -> UntrainedTowers:
    from training.pretraining.run import UntrainedTowers

    audio, _, text = names.partition("+")
    if audio not in {"htsat", "cnn14"} or text not in {"roberta", "bert", "clip"}:
        raise SettingsError(f"Towers “{names}” are unknown: write htsat or cnn14, a +, and roberta, bert or clip.")
    chosen_sizes = _read_sizes(sizes) if sizes else {}
    return UntrainedTowers(audio, text, tokenizer=tokenizer, **chosen_sizes)  # type: ignore[arg-type]


def _read_sizes(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"Sizes {file} can't be read as JSON: check the file.") from error
    kinds = {"projection_dim": int, "audio_sizes": dict, "text_sizes": dict}
    if not isinstance(content, dict) or not all(type(content[key]) is kinds.get(key) for key in content):
        raise SettingsError(
            f"Sizes {file} may only hold projection_dim, a whole number, and the objects audio_sizes and text_sizes."
        )
    return content


def _captioner(captions: str, t5: str | None) -> Captioner:
    from clapboard.labels.captions import RULES, KeywordsAlone

    if t5 and captions == "alone":
        raise SettingsError("With --captions alone there is nothing for a text model to write: leave out that or --t5.")
    if t5:
        from training.captions.t5 import T5Captioner
        from training.captions.text_generator import TextGenerator

        return T5Captioner(TextGenerator.load(t5))
    return RULES if captions == "rules" else KeywordsAlone()
