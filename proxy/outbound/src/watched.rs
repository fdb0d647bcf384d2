//! Who sees a request on its way: watchers and the collector of traces.

use std::net::SocketAddr;

use tulle_core::{ClientTls, Direction, NoTls};
use tulle_http::{Interim, Request, Response, SendError};
use tulle_policy::Meta;
use tulle_tap::{Subject, Tapped};
use tulle_trace::Span;

use crate::{Shard, node::Node};

/// The application is on this machine.
const APPLICATION: ClientTls = ClientTls::None(NoTls::Loopback);

/// What those who watch a request have to know.
pub(crate) struct Watched<'a> {
    pub(crate) shard: &'a Shard,
    /// Who sent it.
    pub(crate) client: SocketAddr,
    pub(crate) route: &'a Meta,
    /// That of the whole request, of which this is one try.
    pub(crate) span: Option<&'a Span>,
}

impl Watched<'_> {
    /// Send a request to an endpoint, before the eyes of those who watch.
    pub(crate) async fn send(
        &self,
        node: &Node,
        request: Request,
        interim: Interim,
    ) -> Result<Response, SendError> {
        if self.span.is_none() && !self.shard.taps.is_watched() {
            return node.http.send(request, interim).await;
        }
        // Its state is large, and most requests do not need it.
        Box::pin(self.send_seen(node, request, interim)).await
    }

    async fn send_seen(
        &self,
        node: &Node,
        mut request: Request,
        interim: Interim,
    ) -> Result<Response, SendError> {
        let span = self.span.map(|span| span.client(&mut request));
        let tapped = self.tap(node, &request);
        match node.http.send(request, interim).await {
            Ok(mut response) => {
                if let Some(tapped) = tapped {
                    response = tapped.observe(response);
                }
                Ok(match span {
                    Some(span) => span.observe(response),
                    None => response,
                })
            }
            Err(error) => {
                if let Some(tapped) = tapped {
                    tapped.failed(error.reset.map(tulle_http::Reset::code));
                }
                if let Some(span) = span {
                    span.failed(error.refusal.reason.code());
                }
                Err(error)
            }
        }
    }

    fn tap(&self, node: &Node, request: &Request) -> Option<Tapped> {
        let endpoint = &node.endpoint;
        let labels: Vec<(&str, &str)> = endpoint
            .labels
            .iter()
            .map(|(key, value)| (&**key, &**value))
            .collect();
        let Meta {
            group,
            kind,
            name,
            namespace,
            ..
        } = self.route;
        let subject = Subject {
            direction: Direction::Outbound,
            source: self.client,
            client: &APPLICATION,
            destination: endpoint.addr,
            server: endpoint.tls.as_ref().map(|tls| &tls.id),
            labels: &labels,
            route: &[
                ("route_group", group),
                ("route_kind", kind),
                ("route_name", name),
                ("route_namespace", namespace),
            ],
        };
        self.shard.taps.request(request, &subject)
    }
}
