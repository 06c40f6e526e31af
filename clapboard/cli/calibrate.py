"""`calibrate`: an encoder for int8, on the audio that it is to hear."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clapboard.cli.output import AsJson, Model, console, settings_with, write_json
from clapboard.errors import ModelError, RequestError

if TYPE_CHECKING:
    from clapboard.audio.windows import Waveform
    from clapboard.settings import Settings


def add_commands(app: typer.Typer) -> None:
    """Register this module's command."""
    app.command()(calibrate)


def calibrate(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Folder of audio files.", exists=True, file_okay=False)
    ] = None,
    project: Annotated[
        int | None, typer.Option("--project", "-p", help="Use a project's audio, and calibrate what serves it.", min=1)
    ] = None,
    version: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Calibrate this finetuned version of the project.")
    ] = None,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Calibrate an encoder for CLAPBOARD_DTYPE=int8, on a project's own audio or a folder's.

    Vectors change with each calibration: recordings are embedded anew, once workers were started again.
    """
    from clapboard.model.int8.calibrate import calibrate as calibrate_encoder
    from clapboard.model.load import load_encoder

    if (folder is None) == (project is None):
        raise RequestError("Calibrating needs audio: name either a FOLDER of it or a --project.")
    if version and project is None:
        raise RequestError("A --version belongs to a project: name it with --project.")
    settings = settings_with(model=model)
    names, waveforms = _of_project(settings, project, version) if project else ([settings.model], _of_folder(folder))
    in_float32 = settings.with_overrides(device="cpu", dtype="float32", engine="auto", fusion=False)
    rows = []
    for name in names:
        found = calibrate_encoder(load_encoder(in_float32, name), waveforms, settings.calibration_dir(name))
        rows.append({"model": name, "dtype": found.dtype} | asdict(found))
        if not as_json:
            console().print(
                f"{name} is calibrated on {found.num_windows} windows: {found.dtype}. In int8, vectors keep a cosine "
                f"of {found.mean_cosine:.4f} to those in float32, and of {found.least_cosine:.4f} at least. Set "
                "CLAPBOARD_DTYPE=int8 and start the workers again.",
                highlight=False,
                markup=False,
            )
    if as_json:
        write_json(rows)


def _of_project(settings: Settings, project: int, version: str | None) -> tuple[list[str], list[Waveform]]:
    """The encoders to calibrate: the version's, or what serves and, if it lacks a calibration, CLAPBOARD_MODEL."""
    from clapboard.model.int8.calibrate import MOST_WINDOWS
    from clapboard.project.calibration_audio import windows_of_project
    from clapboard.project.serving import has_checkpoint, is_tuned
    from clapboard.store import Store

    store = Store.open(settings)
    store.catalog.project(project)
    if version:
        names = [found.encoder for found in store.versions.of_project(project) if found.model_version == version]
        if not names or not has_checkpoint(settings, names[0]):
            raise ModelError(f"Project {project} has no finetuned version {version}: see `clapboard models list`.")
    else:
        promoted = store.versions.promoted(project)
        tuned = [promoted.encoder] if promoted and is_tuned(promoted.encoder) else []
        has_base = (settings.calibration_dir(settings.model) / "manifest.json").is_file()
        names = tuned if tuned and has_base else [settings.model, *tuned]
    return names, windows_of_project(settings, store, project, MOST_WINDOWS)


def _of_folder(folder: Path | None) -> list[Waveform]:
    from clapboard.model.int8.calibrate import MOST_WINDOWS
    from clapboard.project.calibration_audio import windows_of_files

    assert folder is not None
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return windows_of_files(files, MOST_WINDOWS)
