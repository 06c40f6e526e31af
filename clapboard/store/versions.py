"""Model versions of a project, their heads, and the pointer that says which one is promoted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Row, case, delete, exists, func, select, update

from clapboard.errors import NotFoundError
from clapboard.feedback.entries import Outcome
from clapboard.store.database import Database, in_chunks
from clapboard.store.schema import heads, inbox, ledger, projects, versions
from clapboard.suggest.head import ZERO_SHOT, Head


@dataclass(frozen=True)
class Version:
    """A model version of one project: encoder + head + label space. `manifest` says what it came from."""

    project: int
    model_version: str
    encoder: str  # CLAPBOARD_MODEL's value, or a finetuned checkpoint's folder below MODEL_DIR
    encoder_version: str
    head: str
    space_id: str
    created_at: float = 0.0
    promoted_at: float | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)


class VersionStore:
    """The versions and heads tables, and `projects.promoted`."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._db = database
        self._clock = clock

    def put(self, version: Version, head: Head | None = None) -> bool:
        """Store the version and its head in one transaction. Returns whether it is new.

        A version that is there already only gets what the new manifest adds.
        """
        row = {
            "project": version.project,
            "model_version": version.model_version,
            "encoder": version.encoder,
            "encoder_version": version.encoder_version,
            "head": version.head,
            "space_id": version.space_id,
            "created_at": self._clock(),
            "manifest": dict(version.manifest),
        }
        of_version = _of(version.project, version.model_version)
        with self._db.write() as connection:
            if head is not None:
                key = {name: row[name] for name in ("encoder_version", "space_id")}
                content = {"name": version.head, "content": head.to_bytes()}
                connection.execute(self._db.insert(heads).values(key | content).on_conflict_do_nothing())
            statement = self._db.insert(versions).values(row).on_conflict_do_nothing()
            is_new = connection.scalar(statement.returning(versions.c.project)) is not None
            if not is_new:
                old = connection.scalar(select(versions.c.manifest).where(of_version)) or {}
                connection.execute(update(versions).where(of_version).values(manifest={**old, **version.manifest}))
        return is_new

    def put_zero_shot(self, encoder_version: str, space_id: str, head: Head) -> None:
        """Store the zero-shot head of a label space whose class weights aren't all of it."""
        row = {"encoder_version": encoder_version, "space_id": space_id, "name": ZERO_SHOT, "content": head.to_bytes()}
        with self._db.write() as connection:
            connection.execute(self._db.insert(heads).values(row).on_conflict_do_nothing())

    def head(self, encoder_version: str, space_id: str, name: str) -> Head:
        """A fitted head, or one that `put_zero_shot` stored. Raises `NotFoundError`."""
        query = select(heads.c.content).where(
            heads.c.encoder_version == encoder_version, heads.c.space_id == space_id, heads.c.name == name
        )
        with self._db.read() as connection:
            content = connection.scalar(query)
        if content is None:
            raise NotFoundError(
                f"Head {name} is no longer stored: `clapboard models list` shows the versions there are."
            )
        return Head.from_bytes(content)

    def promote(
        self, project: int, model_version: str, *, instead_of: str | None = None, pinned_as: str | None = None
    ) -> bool:
        """Make the version serve the project. Raises `NotFoundError`.

        With `instead_of`, only if that version is still the promoted one; returns whether it was. If `pinned_as` is the
        pinned version, the pin moves to this one, which is the same encoder under the current label config.
        """
        pointer = projects.c.id == project
        if instead_of is not None:
            pointer &= projects.c.promoted.in_([instead_of, model_version])
        with self._db.write() as connection:
            pinned = case((projects.c.pinned == pinned_as, model_version), else_=projects.c.pinned)
            moved = update(projects).where(pointer).values(promoted=model_version, pinned=pinned)
            if not connection.execute(moved).rowcount:
                return False
            of_version = _of(project, model_version)
            if not connection.execute(update(versions).where(of_version).values(promoted_at=self._clock())).rowcount:
                raise _unknown(project, model_version)
        return True

    def pin(self, project: int, model_version: str) -> None:
        """Pin the version that a person chose: only a person replaces it until something new is labelled."""
        newest = select(func.coalesce(func.max(inbox.c.id), 0)).where(inbox.c.project == project).scalar_subquery()
        with self._db.write() as connection:
            of_project = update(projects).where(projects.c.id == project)
            connection.execute(of_project.values(pinned=model_version, pinned_after=newest))

    def unpin(self, project: int) -> None:
        """Let the project learn again."""
        with self._db.write() as connection:
            connection.execute(update(projects).where(projects.c.id == project).values(pinned="", pinned_after=0))

    def pinned(self, project: int) -> str:
        """The pinned version; empty if there is none, or if something has been labelled since."""
        without_labels = [Outcome.SKIPPED, Outcome.WITHDRAWN]
        is_labelled_since = exists().where(
            ledger.c.project == projects.c.id,
            ledger.c.inbox_id > projects.c.pinned_after,
            ledger.c.outcome.not_in(without_labels),
        )
        query = select(projects.c.pinned).where(projects.c.id == project, ~is_labelled_since)
        with self._db.read() as connection:
            return str(connection.scalar(query) or "")

    def promoted(self, project: int) -> Version | None:
        """The project's promoted version; None while the zero-shot base model serves it."""
        return self.all_promoted(project).get(project)

    def all_promoted(self, project: int | None = None) -> dict[int, Version]:
        """The promoted version of every project that has one."""
        query = select(versions).join(
            projects, (projects.c.id == versions.c.project) & (projects.c.promoted == versions.c.model_version)
        )
        if project is not None:
            query = query.where(versions.c.project == project)
        with self._db.read() as connection:
            return {row.project: _version(row) for row in connection.execute(query)}

    def get(self, project: int, model_version: str) -> Version:
        """The version. Raises `NotFoundError`."""
        query = select(versions).where(_of(project, model_version))
        with self._db.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise _unknown(project, model_version)
        return _version(row)

    def of_project(self, project: int) -> list[Version]:
        """The project's versions, oldest first."""
        query = select(versions).where(versions.c.project == project)
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(versions.c.created_at, versions.c.model_version))
            return [_version(row) for row in rows]

    def forget(self, project: int, model_versions: Collection[str]) -> None:
        """Delete versions, but never the promoted one, and the heads that no version has any more."""
        promoted = select(projects.c.promoted).where(projects.c.id == project).scalar_subquery()
        in_use = select(versions.c.model_version).where(
            versions.c.encoder_version == heads.c.encoder_version,
            versions.c.space_id == heads.c.space_id,
            versions.c.head == heads.c.name,
        )
        with self._db.write() as connection:
            for chunk in in_chunks(sorted(model_versions)):
                connection.execute(
                    delete(versions).where(
                        versions.c.project == project,
                        versions.c.model_version.in_(chunk),
                        versions.c.model_version != func.coalesce(promoted, ""),
                    )
                )
            connection.execute(delete(heads).where(heads.c.name != ZERO_SHOT, ~in_use.exists()))

    def encoder_versions(self) -> set[str]:
        """The encoder versions that any project's versions use."""
        with self._db.read() as connection:
            return set(connection.scalars(select(versions.c.encoder_version).distinct()))


def _of(project: int, model_version: str) -> ColumnElement[bool]:
    return (versions.c.project == project) & (versions.c.model_version == model_version)


def _unknown(project: int, model_version: str) -> NotFoundError:
    return NotFoundError(
        f"Project {project} has no version {model_version}: `clapboard models list --project {project}` shows them."
    )


def _version(row: Row[Any]) -> Version:
    return Version(**row._mapping)
