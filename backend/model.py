"""The same backend inside label-studio-ml, for people who run `label-studio-ml start`.

label-studio-ml 1.0.9 keeps one model for all projects, calls each that it didn't train itself «INITIAL», and forks a
process to train at each webhook. Label Studio would take «INITIAL» for the version and store its predictions again at
each retrieval. So its manager gives way to one that hands each request to our services, with the project and the
label config of that request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from label_studio_ml import api
from label_studio_ml.exceptions import AnswerException
from label_studio_ml.model import LabelStudioMLBase, LabelStudioMLManager, ModelWrapper

from backend.predict import PredictService
from backend.webhook import WebhookService
from clapboard.errors import ClapboardError
from clapboard.jobs import CeleryBell, make_celery
from clapboard.settings import load_settings
from clapboard.store import Store


class ClapboardModel(LabelStudioMLBase):  # type: ignore[misc]  # label-studio-ml has no types
    """Suggestions for one project, from the service that answers `clapboard serve`'s `/predict` as well."""

    def __init__(
        self, label_config: str = "", project: str | None = None, service: PredictService | None = None, **_: Any
    ) -> None:
        super().__init__()  # without the config, which label-studio-ml would parse with its entities
        self.label_config = label_config
        self.project = project
        self.service = service or PredictService.from_settings(load_settings())

    def predict(self, tasks: Sequence[Mapping[str, Any]], **_: Any) -> list[dict[str, Any] | list[Any]]:
        """One entry per task: its prediction, or `[]` where it isn't ready and will be pushed."""
        return self.service.predict(tasks, self.label_config, self.project).results


class ClapboardManager(LabelStudioMLManager):  # type: ignore[misc]
    """Makes the model that a request needs, under the version that its predictions carry."""

    predictions: ClassVar[PredictService]
    webhooks: ClassVar[WebhookService]

    @classmethod
    def initialize(cls, model_class: type[ClapboardModel], **kwargs: Any) -> None:
        """Called once, when the server starts. Raises `SettingsError`."""
        super().initialize(model_class, **kwargs)
        settings = load_settings()
        store, bell = Store.open(settings), CeleryBell(make_celery(settings))
        cls.predictions = PredictService(settings, store, bell)
        cls.webhooks = WebhookService(settings, store, bell)

    @classmethod
    def fetch(cls, project: str | None = None, label_config: str | None = None, *_: Any, **__: Any) -> ModelWrapper:
        """For `/setup`: the model and its version. Raises `AnswerException`."""
        config = label_config or ""
        try:
            cls.predictions.refresh()
            version = cls.predictions.setup(project or "", config)
            cls.predictions.remember_projects()
        except ClapboardError as error:
            raise _refusal(error) from None
        model = cls.model_class(label_config=config, project=project, service=cls.predictions)
        return ModelWrapper(model=model, model_version=version)

    @classmethod
    def predict(
        cls, tasks: list[Any], project: str | None = None, label_config: str | None = None, *_: Any, **__: Any
    ) -> tuple[list[Any], ModelWrapper]:
        """For `/predict`: the results, and the model that made them. Raises `AnswerException`."""
        fetched = cls.fetch(project, label_config)
        try:
            return fetched.model.predict(tasks), fetched
        except ClapboardError as error:
            raise _refusal(error) from None

    @classmethod
    def webhook(cls, event: str, data: Mapping[str, Any]) -> dict[str, int | None]:
        """For `/webhook`: the event's number in the inbox, and the job that it started, if any."""
        number, job = cls.webhooks.receive({"action": event, **data})
        return {"event": number, "job": job}


def _refusal(error: ClapboardError) -> AnswerException:
    return AnswerException(error.http_status, str(error), {"traceback": ""})  # else it would add its own


api._manager = ClapboardManager()  # the one place where label-studio-ml's routes look for their manager
