"""JSON answers for Starlette, by msgspec so that dataclasses and times need no conversion."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response


def answer(value: Any, status: int = 200) -> Response:
    """Return the value as a JSON response."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def refuse(status: int, reason: str) -> Response:
    """Return an error whose `reason` a program can act on."""
    return answer({"reason": reason}, status)


async def healthz(request: Request) -> Response:
    """Answer a probe."""
    return PlainTextResponse("ok\n")


async def invalid(request: Request, error: Exception) -> Response:
    """Answer a request that msgspec could not make sense of."""
    return refuse(400, str(error))
