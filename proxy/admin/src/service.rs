use std::{net::IpAddr, rc::Rc};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, StatusCode, header};
use http_body::Body as _;
use tulle_core::{ClientTls, Refusal};
use tulle_discovery::ServerState;
use tulle_http::{Body, Facts as ResponseWords, Interim, Request, Response, Service, refuse};
use tulle_policy::Facts;

use crate::Admin;

/// A log filter longer than this is none.
const MAX_FILTER: usize = 4 * 1024;

/// Answers the requests of one connection.
pub(crate) struct AdminService {
    admin: Rc<Admin>,
    client: IpAddr,
    tls: ClientTls,
}

impl Service for AdminService {
    async fn call(&self, request: Request, _interim: Interim) -> Response {
        if let Err(refusal) = self.authorize(&request) {
            return refuse(&refusal, ResponseWords::of(&request));
        }
        self.answer(request).await
    }
}

impl AdminService {
    pub(crate) fn new(admin: Rc<Admin>, client: IpAddr, tls: ClientTls) -> Self {
        Self { admin, client, tls }
    }

    /// Whether the proxy lives and is ready is told to anyone as long as its policy is not
    /// known: whoever starts it waits for that.
    fn authorize(&self, request: &Request) -> Result<(), Refusal> {
        let ServerState::Known(policy) = &*self.admin.policy.get() else {
            if self.client.is_loopback() || matches!(request.uri().path(), "/live" | "/ready") {
                return Ok(());
            }
            return Err(Refusal::new(
                tulle_core::Reason::PolicyUnknown,
                "the admin port's policy is not known",
            ));
        };
        let matched = policy.route(&Facts::of(request))?;
        policy
            .authorize_request(&matched, self.client, &self.tls)
            .map(drop)
    }

    async fn answer(&self, request: Request) -> Response {
        let local = self.client.to_canonical().is_loopback();
        let parts = &self.admin.parts;
        match (request.uri().path(), request.method()) {
            ("/live", _) => text(StatusCode::OK, "live\n"),
            ("/ready", _) if self.admin.is_ready() => text(StatusCode::OK, "ready\n"),
            ("/ready", _) => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            ("/metrics", &Method::GET | &Method::HEAD) => {
                text(StatusCode::OK, parts.registry.render())
            }
            ("/proxy-log-level" | "/shutdown", _) if !local => {
                text(StatusCode::FORBIDDEN, "heard from loopback only\n")
            }
            ("/proxy-log-level", &Method::GET) => text(StatusCode::OK, parts.log.get()),
            ("/proxy-log-level", &Method::PUT) => self.set_log(request.into_body()).await,
            ("/shutdown", &Method::POST) if !parts.config.shutdown_endpoint => {
                text(StatusCode::NOT_FOUND, "shutdown endpoint is not enabled\n")
            }
            ("/shutdown", &Method::POST) => {
                (parts.shutdown)();
                text(StatusCode::OK, "shutdown\n")
            }
            ("/metrics" | "/proxy-log-level" | "/shutdown", _) => {
                text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n")
            }
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    async fn set_log(&self, body: Body) -> Response {
        let Some(bytes) = collect(body).await else {
            return text(StatusCode::BAD_REQUEST, "the filter could not be read\n");
        };
        let Ok(filter) = std::str::from_utf8(&bytes) else {
            return text(StatusCode::BAD_REQUEST, "the filter is not UTF-8\n");
        };
        match self.admin.parts.log.set(filter.trim()) {
            Ok(()) => text(StatusCode::NO_CONTENT, ""),
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }
}

/// The whole body, if it is not too long to be a filter.
async fn collect(mut body: Body) -> Option<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(frame) =
        std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await
    {
        if let Ok(data) = frame.ok()?.into_data() {
            if bytes.len() + data.len() > MAX_FILTER {
                return None;
            }
            bytes.extend_from_slice(&data);
        }
    }
    Some(bytes.freeze())
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response {
    let text = text.into();
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
