//! Sends spans to the collector in batches, from the control thread.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::mpsc, time};
use tonic::{
    body::Body,
    client::GrpcService,
    codegen::{Bytes, StdError},
};
use tulle_api::otlp::{
    ExportTraceServiceRequest, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans,
    Span, any_value::Value, trace_service_client::TraceServiceClient,
};
use tulle_config::Trace;
use tulle_metrics::{Kind, Registry};

use crate::{
    Tracer,
    span::{Sink, attribute, unix_nanoseconds},
};

/// Spans that wait. At 1 KiB each, what a collector that is away costs is 2 MiB; 16 MiB where
/// clients make every text as long as a span takes it.
const QUEUE: usize = 2048;

/// Spans that are sent together.
const BATCH: usize = 512;

/// How long the first span of a batch waits for others.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long one attempt may take; so that an absent collector is noticed and the newest
/// spans wait instead of the oldest.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What calls are made over. A name for what the generated client asks of it.
pub trait Channel:
    GrpcService<
        Body,
        Error: Into<StdError>,
        ResponseBody: tonic::codegen::Body<Data = Bytes, Error: Into<StdError> + Send>
                          + Send
                          + 'static,
    > + Clone
{
}

impl<C> Channel for C where
    C: GrpcService<
            Body,
            Error: Into<StdError>,
            ResponseBody: tonic::codegen::Body<Data = Bytes, Error: Into<StdError> + Send>
                              + Send
                              + 'static,
        > + Clone
{
}

/// The sending half of tracing.
#[derive(Debug)]
pub struct Exporter {
    spans: mpsc::Receiver<Span>,
    resource: Resource,
    sink: Arc<Sink>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    streams: AtomicU64,
    requests: AtomicU64,
    exported: AtomicU64,
}

impl Exporter {
    /// Both halves. Nothing is sent before [`Self::run`].
    #[must_use]
    pub fn new(settings: &Trace, registry: &Registry) -> (Tracer, Self) {
        let (spans, waiting) = mpsc::channel(QUEUE);
        let sink = Arc::new(Sink {
            spans,
            dropped: AtomicU64::new(0),
        });
        let exporter = Self {
            spans: waiting,
            resource: resource(settings),
            sink: sink.clone(),
            counts: Arc::default(),
        };
        exporter.register(registry);
        (Tracer::new(sink), exporter)
    }

    fn register(&self, registry: &Registry) {
        let count = |name, help, kind, read: fn(&Counts, &Sink) -> u64| {
            let (counts, sink) = (self.counts.clone(), self.sink.clone());
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            registry.sampled(name, help, kind, move || read(&counts, &sink) as f64);
        };
        // The stock names lack the `_total` that a counter's would have.
        count(
            "opentelemetry_span_export_streams",
            "How often sending to the collector was begun.",
            Kind::Gauge,
            |counts, _| counts.streams.load(Ordering::Relaxed),
        );
        count(
            "opentelemetry_span_export_requests",
            "Batches of spans sent to the collector.",
            Kind::Gauge,
            |counts, _| counts.requests.load(Ordering::Relaxed),
        );
        count(
            "opentelemetry_span_exports",
            "Spans that the collector has taken.",
            Kind::Gauge,
            |counts, _| counts.exported.load(Ordering::Relaxed),
        );
        count(
            "tulle_trace_spans_dropped",
            "Spans lost because too many waited or the collector did not take them.",
            Kind::Counter,
            |_, sink| sink.dropped.load(Ordering::Relaxed),
        );
    }

    /// Send batches until the process ends.
    pub async fn run(mut self, channel: impl Channel) {
        self.counts.streams.fetch_add(1, Ordering::Relaxed);
        let mut client = TraceServiceClient::new(channel);
        let mut batch = Vec::new();
        while self.collect(&mut batch).await {
            let count = batch.len() as u64;
            let request = self.request(std::mem::take(&mut batch));
            self.counts.requests.fetch_add(1, Ordering::Relaxed);
            let lost = match time::timeout(TIMEOUT, client.export(request)).await {
                Ok(Ok(answer)) => {
                    let rejected = answer.into_inner().partial_success;
                    rejected.map_or(0, |partial| {
                        tracing::debug!(why = partial.error_message, "spans rejected");
                        u64::try_from(partial.rejected_spans)
                            .unwrap_or(0)
                            .min(count)
                    })
                }
                Ok(Err(status)) => {
                    tracing::debug!(code = ?status.code(), why = status.message(), count, "spans lost");
                    count
                }
                Err(_) => {
                    tracing::debug!(count, "the collector does not answer; spans lost");
                    count
                }
            };
            self.counts
                .exported
                .fetch_add(count - lost, Ordering::Relaxed);
            self.sink.dropped.fetch_add(lost, Ordering::Relaxed);
        }
    }

    /// Wait for a span and for those that follow it closely; false when there will be none.
    async fn collect(&mut self, batch: &mut Vec<Span>) -> bool {
        if self.spans.recv_many(batch, BATCH).await == 0 {
            return false;
        }
        let rest = async {
            while batch.len() < BATCH {
                let room = BATCH - batch.len();
                if self.spans.recv_many(batch, room).await == 0 {
                    return;
                }
            }
        };
        // Over its time or full: either way it goes.
        let _ = time::timeout(INTERVAL, rest).await;
        true
    }

    fn request(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: "tulle-proxy".to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                    }),
                    spans,
                }],
            }],
        }
    }
}

/// What all spans of this proxy have in common.
fn resource(settings: &Trace) -> Resource {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    texts.extend(
        settings
            .service
            .iter()
            .map(|name| ("service.name".to_owned(), name.clone())),
    );
    if let Some(path) = &settings.attributes_path {
        match std::fs::read_to_string(path) {
            Ok(text) => texts.extend(tulle_config::attributes(&text)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "spans go without these attributes");
            }
        }
    }
    texts.extend(settings.attributes.iter().cloned());
    texts.extend(
        settings
            .hostname
            .iter()
            .map(|name| ("host.name".to_owned(), name.clone())),
    );
    let texts = texts
        .into_iter()
        .map(|(key, text)| attribute(&key, Value::StringValue(text)));
    let started = i64::try_from(unix_nanoseconds() / 1_000_000_000).unwrap_or_default();
    let numbers: [KeyValue; 2] = [
        attribute("process.pid", Value::IntValue(std::process::id().into())),
        attribute("process.start_timestamp", Value::IntValue(started)),
    ];
    Resource {
        attributes: texts.chain(numbers).collect(),
    }
}
