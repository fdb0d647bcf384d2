"""The rules as a gRPC service."""

from typing import Any

import grpc

from vaccine_finder.eligibility.rules import Profile, RuleBook
from vaccine_finder.process import Handler
from vaccine_finder.wire import eligibility_pb2 as wire

Context = grpc.aio.ServicerContext[Any, Any]


def handler(book: RuleBook) -> Handler:
    """Return the service that answers from these rules."""
    catalogue = wire.CatalogueReply(
        occupations=_terms(book.occupations),
        conditions=_terms(book.conditions),
        vaccines=_terms({vaccine.code: vaccine.title for vaccine in book.vaccines}),
    )

    async def give_catalogue(request: wire.CatalogueRequest, context: Context) -> wire.CatalogueReply:
        return catalogue

    async def check(request: wire.Profile, context: Context) -> wire.Verdict:
        profile = Profile(request.age, request.occupation, frozenset(request.conditions))
        if unknown := book.unknown_words(profile):
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"not in the catalogue: {', '.join(unknown)}"
            )
        return wire.Verdict(
            vaccines=[
                wire.Eligible(
                    code=vaccine.code,
                    title=vaccine.title,
                    protects=vaccine.protects,
                    doses=vaccine.doses,
                    because=because,
                )
                for vaccine, because in book.eligible(profile)
            ]
        )

    return grpc.method_handlers_generic_handler(
        "vaccine_finder.eligibility.Eligibility",
        {
            "Catalogue": grpc.unary_unary_rpc_method_handler(
                give_catalogue,
                request_deserializer=wire.CatalogueRequest.FromString,
                response_serializer=wire.CatalogueReply.SerializeToString,
            ),
            "Check": grpc.unary_unary_rpc_method_handler(
                check,
                request_deserializer=wire.Profile.FromString,
                response_serializer=wire.Verdict.SerializeToString,
            ),
        },
    )


def _terms(titles: dict[str, str]) -> list[wire.Term]:
    return [wire.Term(code=code, title=title) for code, title in titles.items()]
