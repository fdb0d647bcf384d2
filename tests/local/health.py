"""A gRPC server that answers health checks, well or sick, for the probe tests."""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf.wrappers_pb2 import Int32Value, StringValue


def check(request: StringValue, _: grpc.ServicerContext) -> Int32Value:
    return Int32Value(value=1 if request.value == sys.argv[2] else 2)


if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(check, StringValue.FromString, Int32Value.SerializeToString)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler}),)
    )
    server.add_insecure_port(f"[::]:{sys.argv[1]}")
    server.start()
    server.wait_for_termination()
