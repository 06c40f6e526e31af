"""`GET /ledger`: what became of the suggestions, as JSON for dashboards."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool

from backend.json_route import JsonRoute
from clapboard.project.ledger_report import LedgerReport, LedgerReports
from clapboard.search.search_request import MAX_ID
from clapboard.store import Store


def ledger_router(store: Store) -> APIRouter:
    """The route `GET /ledger?project=N`, up to the last event in the inbox."""
    router = APIRouter(route_class=JsonRoute)
    reports = LedgerReports(store)

    @router.get("/ledger")
    async def ledger(project: Annotated[int, Query(ge=1, le=MAX_ID)]) -> LedgerReport:
        """Acceptance, median lead times, and what isn't learnt from: the same as `clapboard ledger --json`."""
        return await run_in_threadpool(reports.report, project)

    return router
