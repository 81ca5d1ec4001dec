"""``/v1/lookups``: the tables that ``enrich`` may name."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from app.orders.lookups import Lookups


def lookup_routes(lookups: Lookups) -> APIRouter:
    """What there is and what is loaded."""
    router = APIRouter(prefix="/v1/lookups", tags=["lookups"])

    @router.get("", summary="Lookup tables: those that are loaded with their columns, rows, bytes and users")
    async def list_lookups() -> JSONResponse:
        return JSONResponse({"lookups": await lookups.describe()})

    return router
