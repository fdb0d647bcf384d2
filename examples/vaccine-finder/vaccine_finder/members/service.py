"""The register as a gRPC service; who may call it is for the mesh to decide (`manifests/policy.yaml`)."""

import logging
from collections.abc import Iterable
from typing import Any

import grpc

from vaccine_finder.members.register import Family
from vaccine_finder.process import Handler
from vaccine_finder.wire import members_pb2 as wire

log = logging.getLogger(__name__)


def handler(families: Iterable[Family]) -> Handler:
    """Return the service that knows these families."""
    known = {family.number: _message(family) for family in families}

    async def find_family(
        request: wire.FamilyRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> wire.Family:
        family = known.get(request.number)
        if family is None:
            log.info("unknown family asked for")
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such family")
        return family

    return grpc.method_handlers_generic_handler(
        "vaccine_finder.members.Members",
        {
            "FindFamily": grpc.unary_unary_rpc_method_handler(
                find_family,
                request_deserializer=wire.FamilyRequest.FromString,
                response_serializer=wire.Family.SerializeToString,
            )
        },
    )


def _message(family: Family) -> wire.Family:
    return wire.Family(
        number=family.number,
        place=family.place,
        people=[
            wire.Person(
                id=person.id,
                name=person.name,
                birth_date=person.birth_date.isoformat(),
                occupation=person.occupation,
                conditions=person.conditions,
            )
            for person in family.people
        ],
    )
