"""Our part of OTLP against bytes that the public package `opentelemetry-proto` has written."""

from google.protobuf.json_format import MessageToDict

from tulle.wire import otlp_pb2 as otlp

EXPORT = bytes.fromhex(
    "0ac8010a170a150a0c736572766963652e6e616d6512050a0377656212ac010a100a0b74756c6c652d70726f78791201311297010a10"
    "000102030405060708090a0b0c0d0e0f120800010203040506071a03613d62220808090a0b0c0d0e0f2a052f626f6f6b300339010000"
    "00000000004102000000000000004a0b0a047465787412030a01784a150a066e756d626572120b18ffffffffffffffffff014a090a03"
    "796573120210014a110a0468616c66120921000000000000e03f7a0712037768791802850101000000"
)
ANSWER = bytes.fromhex("0a080803120466756c6c")


def attribute(key: str, value: otlp.AnyValue) -> otlp.KeyValue:
    return otlp.KeyValue(key=key, value=value)


def test_an_export_is_written_and_read_as_the_public_package_does() -> None:
    span = otlp.Span(
        trace_id=bytes(range(16)),
        span_id=bytes(range(8)),
        parent_span_id=bytes(range(8, 16)),
        trace_state="a=b",
        name="/book",
        kind=otlp.Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=1,
        end_time_unix_nano=2,
        flags=1,
        attributes=[
            attribute("text", otlp.AnyValue(string_value="x")),
            attribute("number", otlp.AnyValue(int_value=-1)),
            attribute("yes", otlp.AnyValue(bool_value=True)),
            attribute("half", otlp.AnyValue(double_value=0.5)),
        ],
        status=otlp.Status(message="why", code=otlp.Status.STATUS_CODE_ERROR),
    )
    ours = otlp.ExportTraceServiceRequest(
        resource_spans=[
            otlp.ResourceSpans(
                resource=otlp.Resource(
                    attributes=[attribute("service.name", otlp.AnyValue(string_value="web"))]
                ),
                scope_spans=[
                    otlp.ScopeSpans(
                        scope=otlp.InstrumentationScope(name="tulle-proxy", version="1"), spans=[span]
                    )
                ],
            )
        ]
    )

    assert ours.SerializeToString(deterministic=True) == EXPORT
    assert otlp.ExportTraceServiceRequest.FromString(EXPORT) == ours


def test_what_a_collector_rejects_is_read() -> None:
    answer = otlp.ExportTraceServiceResponse.FromString(ANSWER)

    assert MessageToDict(answer) == {"partialSuccess": {"rejectedSpans": "3", "errorMessage": "full"}}
