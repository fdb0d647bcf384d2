"""The generator's own endpoint: `GET /` reports, `PUT /rate?per_second=…` changes the rate."""

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vaccine_finder.json_http import answer, healthz, invalid, refuse
from vaccine_finder.visitors.load import Load

HIGHEST_RATE = 10_000


def app(load: Load) -> Starlette:
    """Return the application."""

    async def report(request: Request) -> Response:
        return answer(load.report())

    async def set_rate(request: Request) -> Response:
        rate = msgspec.convert(request.query_params.get("per_second", ""), float, strict=False)
        if not 0 <= rate <= HIGHEST_RATE:
            return refuse(400, f"per_second must be from 0 to {HIGHEST_RATE}")
        load.set_rate(rate)
        return answer(load.report())

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/", report),
            Route("/rate", set_rate, methods=["PUT"]),
        ],
        exception_handlers={msgspec.ValidationError: invalid},
    )
