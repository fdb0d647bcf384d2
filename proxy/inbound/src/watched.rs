//! Who sees a request on its way: watchers and the collector of traces.

use tulle_core::Direction;
use tulle_http::{Request, Response, SendError};
use tulle_policy::{Answer, Permit};
use tulle_tap::{Subject, Tapped};
use tulle_trace::Span;

use crate::{Shard, accept::Peer, port::Port};

/// Show a request to those who watch, if anybody does; a refused one has no grant.
pub(crate) fn tap(
    shard: &Shard,
    port: &Port,
    peer: &Peer,
    request: &Request,
    admission: &Result<Permit, Answer>,
) -> Option<Tapped> {
    if !shard.taps.is_watched() {
        return None;
    }
    let mut labels = Vec::new();
    let mut route = Vec::new();
    if let Ok(grant) = admission.as_ref().map(Permit::grant) {
        let (server, authz) = (&grant.server, &grant.authz);
        labels.extend([
            ("srv_group", &*server.group),
            ("srv_kind", &*server.kind),
            ("srv_name", &*server.name),
            ("authz_group", &*authz.group),
            ("authz_kind", &*authz.kind),
            ("authz_name", &*authz.name),
        ]);
        if let Some(meta) = &grant.route {
            route.extend([
                ("route_group", &*meta.group),
                ("route_kind", &*meta.kind),
                ("route_name", &*meta.name),
            ]);
        }
    }
    let subject = Subject {
        direction: Direction::Inbound,
        source: peer.address,
        client: &peer.tls,
        destination: port.target,
        server: None,
        labels: &labels,
        route: &route,
    };
    shard.taps.request(request, &subject)
}

/// Show the response to whoever saw the request.
pub(crate) fn observe(tapped: Option<Tapped>, response: Response) -> Response {
    match tapped {
        Some(tapped) => tapped.observe(response),
        None => response,
    }
}

/// End the span of what was asked of the application.
pub(crate) fn attempt(
    span: Option<Span>,
    sent: Result<Response, SendError>,
) -> Result<Response, SendError> {
    let Some(span) = span else {
        return sent;
    };
    match sent {
        Ok(response) => Ok(span.observe(response)),
        Err(error) => {
            span.failed(error.refusal.reason.code());
            Err(error)
        }
    }
}
