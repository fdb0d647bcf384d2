//! What a collector is sent, over the wire it is sent by.

#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

use std::{collections::BTreeMap, sync::Arc};

use http::HeaderMap;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use parking_lot::Mutex;
use tokio::{io::DuplexStream, runtime::Handle, sync::mpsc, task::LocalSet};
use tonic::Status;
use tulle_api::otlp::{
    ExportTraceServiceRequest, ExportTraceServiceResponse, KeyValue, any_value::Value,
    span::SpanKind, status::StatusCode, trace_service_server as server,
};
use tulle_config::{ClientH2, ControlAddr, HostPort, Trace};
use tulle_core::Direction;
use tulle_discovery::{ControlChannel, Dial, DialError, Dialed};
use tulle_http::{Body, Request, Response};
use tulle_metrics::Registry;
use tulle_trace::{Exporter, Tracer};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A collector at the other end of a pipe.
struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl server::TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Connects once; nobody answers a second time.
struct Once(Mutex<Option<DuplexStream>>);

impl Dial for Once {
    async fn dial(&self) -> Result<Dialed, DialError> {
        let io = self.0.lock().take();
        let io = io.ok_or_else(|| std::io::Error::other("nobody answers"))?;
        Ok(Dialed {
            io: Box::new(io),
            usable: None,
        })
    }
}

fn settings() -> Trace {
    let addr = HostPort {
        host: "collector".into(),
        port: 4317,
    };
    Trace {
        collector: ControlAddr {
            addr,
            name: None,
            loopback: true,
        },
        service: Some("web".into()),
        attributes_path: None,
        attributes: vec![
            ("cluster".into(), "a".into()),
            ("cluster".into(), "b".into()),
        ],
        hostname: Some("web-1".into()),
    }
}

fn channel(end: Option<DuplexStream>) -> ControlChannel {
    let windows = ClientH2 {
        initial_stream_window: 65_535,
        initial_connection_window: 1 << 20,
    };
    let dial = Once(Mutex::new(end));
    ControlChannel::new(
        &settings().collector.addr,
        dial,
        windows,
        &Handle::current(),
    )
}

fn collector() -> (
    ControlChannel,
    mpsc::UnboundedReceiver<ExportTraceServiceRequest>,
) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (exported, seen) = mpsc::unbounded_channel();
    let service = server::TraceServiceServer::new(Collector(exported));
    tokio::spawn(
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(far), TowerToHyperService::new(service)),
    );
    (channel(Some(near)), seen)
}

fn request(parent: Option<&str>) -> Request {
    let mut request = http::Request::get("http://web:8080/book?slot=3")
        .header("user-agent", "test")
        .header("authorization", "secret");
    if let Some(parent) = parent {
        request = request.header("traceparent", parent);
    }
    request.body(Body::empty()).unwrap()
}

async fn carry(tracer: &Tracer, mut request: Request, response: Response) -> Request {
    let served = tracer.server(Direction::Outbound, &mut request).unwrap();
    let attempt = served.client(&mut request);
    let response = served.observe(attempt.observe(response));
    response.into_body().collect().await.unwrap();
    request
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    let pairs = attributes.iter().map(|pair| {
        let value = match pair.value.as_ref().unwrap().value.as_ref().unwrap() {
            Value::StringValue(text) => text.clone(),
            Value::IntValue(number) => number.to_string(),
            other => panic!("{other:?}"),
        };
        (pair.key.as_str(), value)
    });
    pairs.collect()
}

#[tokio::test(start_paused = true)]
async fn a_proxy_adds_a_server_span_and_a_client_span_below_the_applications() {
    LocalSet::new()
        .run_until(async {
            let registry = Registry::new();
            let (tracer, exporter) = Exporter::new(&settings(), &registry);
            let (channel, mut seen) = collector();
            tokio::task::spawn_local(exporter.run(channel));
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("14"));
            let body = Full::new("x".into()).with_trailers(async move { Some(Ok(trailers)) });
            let body = body.map_err(|never: std::convert::Infallible| match never {});

            let sent = carry(
                &tracer,
                request(Some(PARENT)),
                Response::new(Body::wrap(body)),
            )
            .await;

            let export = seen.recv().await.unwrap();
            let of = &export.resource_spans[0];
            let resource = texts(&of.resource.as_ref().unwrap().attributes);
            assert_eq!(resource["service.name"], "web");
            assert_eq!(resource["cluster"], "b");
            assert_eq!(resource["host.name"], "web-1");
            let spans = &of.scope_spans[0].spans;
            assert_eq!(spans.len(), 2);
            let client = spans
                .iter()
                .find(|span| span.kind() == SpanKind::Client)
                .unwrap();
            let server = spans
                .iter()
                .find(|span| span.kind() == SpanKind::Server)
                .unwrap();
            let trace = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes();
            assert_eq!(
                (&client.trace_id[..], &server.trace_id[..]),
                (&trace[..], &trace[..])
            );
            assert_eq!(
                server.parent_span_id,
                0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()
            );
            assert_eq!(client.parent_span_id, server.span_id);
            let id = u64::from_be_bytes(client.span_id[..].try_into().unwrap());
            assert_eq!(
                sent.headers()["traceparent"],
                format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{id:016x}-01")
            );
            assert_eq!(server.name, "/book");
            let said = texts(&server.attributes);
            assert_eq!(said["direction"], "outbound");
            assert_eq!(said["http.request.method"], "GET");
            assert_eq!(said["url.full"], "http://web:8080/book?slot=3");
            assert_eq!(
                (&*said["server.address"], &*said["server.port"]),
                ("web", "8080")
            );
            assert_eq!(said["http.response.status_code"], "200");
            assert_eq!(said["rpc.grpc.status_code"], "14");
            assert_eq!(server.status.as_ref().unwrap().code(), StatusCode::Error);
            assert!(said.values().all(|value| value != "secret"), "{said:?}");
            let rendered = registry.render();
            assert!(
                rendered.contains("opentelemetry_span_export_requests 1\n"),
                "{rendered}"
            );
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_span_is_small_however_much_its_request_says() {
    LocalSet::new()
        .run_until(async {
            let (tracer, exporter) = Exporter::new(&settings(), &Registry::new());
            let (channel, mut seen) = collector();
            tokio::task::spawn_local(exporter.run(channel));
            let long = "x".repeat(20_000);
            let hostile = http::Request::builder()
                .method(long.as_str())
                .uri(format!("/{long}?{long}"))
                .header("traceparent", PARENT)
                .header("tracestate", format!("a={long}"))
                .header("host", &long)
                .header("user-agent", &long)
                .header("content-type", &long);

            let mut hostile = hostile.body(Body::empty()).unwrap();
            drop(tracer.server(Direction::Inbound, &mut hostile));

            let sent = seen.recv().await.unwrap();
            let span = &sent.resource_spans[0].scope_spans[0].spans[0];
            assert_eq!(span.trace_state, "");
            let length = texts(&span.attributes)
                .values()
                .chain([&span.name])
                .map(String::len)
                .sum::<usize>();
            assert!(length < 9 * 1024, "{length}");
            assert_eq!(hostile.headers()["tracestate"].len(), 20_002);
        })
        .await;
}

#[tokio::test]
async fn a_request_without_a_context_or_a_collector_goes_on_as_it_came() {
    let (tracer, _exporter) = Exporter::new(&settings(), &Registry::new());
    let unsampled = PARENT.replace("-01", "-00");
    for (tracer, parent) in [
        (&tracer, None),
        (&tracer, Some(unsampled.as_str())),
        (&Tracer::default(), Some(PARENT)),
    ] {
        let mut carried = request(parent);

        let span = tracer.server(Direction::Inbound, &mut carried);

        assert!(span.is_none());
        assert_eq!(carried.headers(), request(parent).headers());
    }
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    LocalSet::new()
        .run_until(async {
            let registry = Arc::new(Registry::new());
            let (tracer, exporter) = Exporter::new(&settings(), &registry);
            tokio::task::spawn_local(exporter.run(channel(None)));

            for _ in 0..3000 {
                let mut request = request(Some(PARENT));
                drop(tracer.server(Direction::Inbound, &mut request));
            }

            let dropped = |expected: u32| {
                let line = format!("tulle_trace_spans_dropped_total {expected}\n");
                assert!(registry.render().contains(&line), "{}", registry.render());
            };
            dropped(3000 - 2048);
            // Four batches, each given up after its time.
            tokio::time::sleep(std::time::Duration::from_mins(1)).await;
            dropped(3000);
        })
        .await;
}
