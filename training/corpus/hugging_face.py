"""Pairs of a Hugging Face data set on disk (`save_to_disk`). Its audio stays encoded and is decoded like all other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clapboard.errors import TrainingError
from training.corpus.pairs import CAPTION_FIELDS, TAG_FIELDS, Audio, Pair, read_fields

if TYPE_CHECKING:
    from datasets import Dataset

INFO_FILES = ("dataset_info.json", "dataset_dict.json")
_AUDIO_COLUMNS = ("audio", "path", "file")
_DAMAGES = (OSError, ValueError, KeyError, TypeError)  # what the readers underneath raise for a damaged file


def hugging_face_pairs(folder: Path) -> Iterator[Pair]:
    """The pairs of the data set's rows, one in memory at a time; class numbers are replaced with names.

    A data set with several splits is given as FOLDER/train. Raises `TrainingError` if it can't be read, has several
    splits, or has no column of audio or of texts.
    """
    import datasets

    data_set = _load(folder)
    column = _audio_column(folder, data_set)
    if isinstance(data_set.features[column], datasets.Audio):
        data_set = data_set.cast_column(column, datasets.Audio(decode=False))
    classes = {name: labels for name in data_set.column_names if (labels := _class_names(data_set.features[name]))}
    for number, row in enumerate(_rows(folder, data_set)):
        texts = {name: _names_of(value, classes[name]) if name in classes else value for name, value in row.items()}
        texts.pop(column)
        name, audio = _sound(folder, number, row[column])
        yield read_fields(texts, f"{folder}, row {number},").pair(name, audio)


def _load(folder: Path) -> Dataset:
    import datasets

    try:
        data_set = datasets.load_from_disk(str(folder))
    except _DAMAGES as error:
        raise _damaged(folder) from error
    if isinstance(data_set, datasets.DatasetDict):
        if len(data_set) != 1:
            raise TrainingError(
                f"{folder} has the splits {', '.join(data_set)}: choose one, such as {folder / next(iter(data_set))}."
            )
        (data_set,) = data_set.values()
    return data_set


def _rows(folder: Path, data_set: Dataset) -> Iterator[dict[str, Any]]:
    try:
        yield from data_set
    except _DAMAGES as error:
        raise _damaged(folder) from error


def _damaged(folder: Path) -> TrainingError:
    return TrainingError(f"{folder} can't be read as a Hugging Face data set: save it again with save_to_disk.")


def _audio_column(folder: Path, rows: Dataset) -> str:
    import datasets

    columns = [name for name, feature in rows.features.items() if isinstance(feature, datasets.Audio)]
    columns += [name for name in _AUDIO_COLUMNS if name in rows.column_names]
    if not columns:
        raise TrainingError(f"{folder} has no column of audio, only {', '.join(rows.column_names)}: name it audio.")
    if not set(rows.column_names) & {*CAPTION_FIELDS, *TAG_FIELDS}:
        names = " or ".join((*CAPTION_FIELDS, *TAG_FIELDS))
        raise TrainingError(f"{folder} has no column of texts, only {', '.join(rows.column_names)}: name one {names}.")
    readable = [name for name in columns if _is_file(rows.features[name])]
    if not readable:
        raise TrainingError(
            f"{folder} has no files in its column {columns[0]}: cast it to datasets.Audio and save it again."
        )
    return readable[0]


def _is_file(feature: Any) -> bool:
    """Whether a column holds paths or file contents, rather than samples as numbers."""
    import datasets

    if isinstance(feature, dict):
        return not feature.keys().isdisjoint({"path", "bytes"})
    kinds = {"string", "large_string", "binary", "large_binary"}
    return isinstance(feature, datasets.Audio) or getattr(feature, "dtype", None) in kinds


def _class_names(feature: Any) -> list[str]:
    """The class names of a column of classes, or of lists of classes; empty for other columns."""
    return list(getattr(getattr(feature, "feature", feature), "names", None) or ())


def _names_of(value: Any, names: list[str]) -> list[str]:
    numbers = value if isinstance(value, list) else [value]
    return [names[number] for number in numbers if number is not None and number >= 0]  # -1: unknown


def _sound(folder: Path, number: int, value: Any) -> tuple[str, Audio]:
    if isinstance(value, str):
        return value, folder / value
    if isinstance(value, bytes):
        return f"row {number}", value
    path, content = (value or {}).get("path"), (value or {}).get("bytes")
    name = f"row {number}" + (f" ({Path(path).name})" if path else "")
    if content is None and path:
        return name, folder / path
    return name, content or b""
