"""The base class of models."""

from __future__ import annotations

from typing import Any, ClassVar


class LabelStudioMLBase:
    """One for each request. Its values are remembered by the process, project by project, as 2.x does in effect."""

    TRAIN_EVENTS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATION_DELETED", "START_TRAINING")
    _values: ClassVar[dict[tuple[str, str], Any]] = {}

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id = project_id or ""
        self.set("label_config", label_config)
        if not self.get("model_version"):
            self.set("model_version", "0.0.1")
        self.setup()

    def setup(self) -> None:
        """For subclasses."""

    def get(self, key: str) -> Any:
        return self._values.get((self.project_id, key))

    def set(self, key: str, value: Any) -> None:
        self._values[self.project_id, key] = value

    def set_extra_params(self, extra_params: Any) -> None:
        if not isinstance(extra_params, str):
            raise ValueError("only texts can be kept")
        self.set("extra_params", extra_params)

    def predict(self, tasks: list[Any], context: Any = None, **_: Any) -> Any:
        """For subclasses."""

    def fit(self, event: str, data: Any, **_: Any) -> Any:
        """For subclasses."""
