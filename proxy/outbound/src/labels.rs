use tulle_metrics::Labels;
use tulle_policy::Meta;
use tulle_telemetry::StatusFamily;

pub(crate) const ROUTE_HTTP: StatusFamily = StatusFamily {
    statuses: "outbound_http_route_request_statuses",
    duration: "outbound_http_route_request_duration_seconds",
    bounds: &[0.05, 0.5, 1.0, 10.0],
    requests: None,
    status_label: "http_status",
    grpc: false,
    error_label: true,
};

pub(crate) const ROUTE_GRPC: StatusFamily = StatusFamily {
    statuses: "outbound_grpc_route_request_statuses",
    duration: "outbound_grpc_route_request_duration_seconds",
    bounds: &[0.05, 0.5, 1.0, 10.0],
    requests: None,
    status_label: "grpc_status",
    grpc: true,
    error_label: true,
};

pub(crate) const BACKEND_HTTP: StatusFamily = StatusFamily {
    statuses: "outbound_http_route_backend_response_statuses",
    duration: "outbound_http_route_backend_response_duration_seconds",
    bounds: &[0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0],
    requests: Some("outbound_http_route_backend_requests"),
    status_label: "http_status",
    grpc: false,
    error_label: true,
};

pub(crate) const BACKEND_GRPC: StatusFamily = StatusFamily {
    statuses: "outbound_grpc_route_backend_response_statuses",
    duration: "outbound_grpc_route_backend_response_duration_seconds",
    bounds: &[0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0],
    requests: Some("outbound_grpc_route_backend_requests"),
    status_label: "grpc_status",
    grpc: true,
    error_label: true,
};

/// `<role>_group`, `<role>_kind` and so on.
pub(crate) fn meta_labels(role: &str, meta: &Meta) -> Labels {
    let label = |part: &str| format!("{role}_{part}");
    let port = meta.port.map_or_else(String::new, |port| port.to_string());
    Labels::none()
        .with(&label("group"), &meta.group)
        .with(&label("kind"), &meta.kind)
        .with(&label("namespace"), &meta.namespace)
        .with(&label("name"), &meta.name)
        .with(&label("port"), &port)
        .with(&label("section_name"), &meta.section)
}
