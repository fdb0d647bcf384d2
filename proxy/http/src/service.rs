use std::{cell::RefCell, future::Future, rc::Rc};

use tulle_core::Refusal;

use crate::{Facts, Request, Response, body::RequestSource, refuse};

/// What answers requests. It never fails: a refusal is a response.
pub trait Service: 'static {
    /// Answer one request. `interim` forwards 1xx heads meanwhile.
    fn call(&self, request: Request, interim: Interim) -> impl Future<Output = Response>;

    /// Answer what the codec itself refuses; `facts` are of a request that could not be read.
    fn refuse(&self, refusal: &Refusal, facts: Facts) -> Response {
        refuse(refusal, facts)
    }
}

/// Forwards 1xx responses to the client of the request that it came with; does nothing
/// once the final response was given, or where the client's protocol has none.
#[derive(Clone, Default)]
pub struct Interim(Sink);

#[derive(Clone, Default)]
enum Sink {
    #[default]
    Nobody,
    Http1 {
        source: Rc<dyn RequestSource>,
        epoch: u32,
    },
    Http2(Rc<RefCell<h2::server::SendResponse<bytes::Bytes>>>),
}

impl Interim {
    /// For a request that has no client.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    pub(crate) fn http1(source: Rc<dyn RequestSource>, epoch: u32) -> Self {
        Self(Sink::Http1 { source, epoch })
    }

    pub(crate) fn http2(respond: Rc<RefCell<h2::server::SendResponse<bytes::Bytes>>>) -> Self {
        Self(Sink::Http2(respond))
    }

    /// Forward one head. Its status must be 1xx and not 101.
    pub fn send(&self, mut head: http::Response<()>) {
        crate::headers::strip_hop_by_hop(head.headers_mut());
        match &self.0 {
            Sink::Nobody => {}
            Sink::Http1 { source, epoch } => source.informational(*epoch, &head),
            Sink::Http2(respond) => {
                // Too late or reset: the final response tells the client what matters.
                let _ = respond.borrow_mut().send_informational(head);
            }
        }
    }
}

impl std::fmt::Debug for Interim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.0 {
            Sink::Nobody => "Interim(nobody)",
            Sink::Http1 { .. } => "Interim(http/1)",
            Sink::Http2(_) => "Interim(http/2)",
        })
    }
}
