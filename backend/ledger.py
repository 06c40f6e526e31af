"""What became of the suggestions, as JSON for people's own dashboards."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool

from clapboard.feedback.acceptance import Acceptance, acceptance
from clapboard.store import Store


def ledger_router(store: Store) -> APIRouter:
    """`GET /ledger?project=N`, up to the last event in the inbox."""
    router = APIRouter()

    @router.get("/ledger")
    async def ledger(project: Annotated[int, Query(ge=1, lt=2**63)]) -> Acceptance:
        """Acceptance per class, model version and annotator, and median lead times."""
        return await run_in_threadpool(_acceptance, store, project)

    return router


def _acceptance(store: Store, project: int) -> Acceptance:
    store.ledger.catch_up()
    return acceptance(store.ledger.standing(project))
