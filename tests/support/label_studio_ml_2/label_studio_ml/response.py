"""What a model's `predict` returns."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class PredictionValue(BaseModel):
    """One prediction."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: str | None = None
    score: float | None = 0.0
    result: list[dict[str, Any]]


class ModelResponse(BaseModel):
    """The predictions of a request, one or several for each task."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: str | None = None
    predictions: list[list[PredictionValue] | PredictionValue]

    def complete(self) -> None:
        """Predictions without a version get the response's."""
        for entry in self.predictions:
            for prediction in entry if isinstance(entry, list) else [entry]:
                prediction.model_version = prediction.model_version or self.model_version
