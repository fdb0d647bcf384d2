use std::{fmt, io};

use tulle_core::{Reason, Refusal};

use crate::{Facts, Request, Response, refuse};

/// Why serving a connection ended otherwise than by both sides being done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The peer broke the protocol. It was answered (400 or 431, `GOAWAY`) as far as possible.
    #[error("{}", .0.message)]
    Malformed(Refusal),
    /// A head or a preface was begun and not finished in time.
    #[error("the peer did not finish a request head in time")]
    HeadTimeout,
    /// The peer did not answer a ping in time.
    #[error("the peer did not answer a keep-alive ping in time")]
    KeepAliveTimeout,
    /// The answer could not be completed, and the peer was told by closing.
    #[error("the response ended early: {0}")]
    ResponseFailed(String),
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// HTTP/2 failed.
    #[error("{0}")]
    Http2(h2::Error),
}

impl ServeError {
    /// What a client is told that has kept us waiting.
    pub(crate) fn late() -> Refusal {
        let what = "the head of the request did not come in time";
        Refusal::new(Reason::HeadTimeout, what)
    }
}

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
#[error("{refusal}")]
pub struct SendError {
    /// What to tell the client.
    pub refusal: Refusal,
    /// The request, if it provably was not processed and can be sent again from its start.
    pub request: Option<Box<Request>>,
    /// The stream error that the peer answered with, where it was one.
    pub reset: Option<Reset>,
}

impl From<Refusal> for SendError {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            request: None,
            reset: None,
        }
    }
}

impl SendError {
    pub(crate) fn new(reason: Reason, message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self {
            refusal: Refusal::new(reason, message),
            request: None,
            reset: None,
        }
    }

    fn handing_back(mut self, request: Request) -> Self {
        self.request = Some(Box::new(request));
        self
    }

    /// The answer for the client: a stream error is passed on to HTTP/2 clients as one.
    #[must_use]
    pub fn response(&self, facts: Facts) -> Response {
        let mut response = refuse(&self.refusal, facts);
        if let Some(reset) = self.reset
            && facts.is_http2()
        {
            response.extensions_mut().insert(reset);
        }
        response
    }
}

/// A request that got no response, with the request left where it was.
pub(crate) struct Failed {
    pub error: SendError,
    pub fate: Fate,
}

/// What became of a request that got no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The server cannot have processed it, and it can be sent from its start.
    Unprocessed,
    /// The connection was lost before the server said anything, and it can be sent from its
    /// start.
    Unknown,
    /// It cannot be sent again, or must not.
    Spent,
}

impl Failed {
    pub(crate) fn into_error(self, request: Request) -> SendError {
        match self.fate {
            Fate::Unprocessed => self.error.handing_back(request),
            Fate::Unknown | Fate::Spent => self.error,
        }
    }
}

/// An HTTP/2 error code. As an extension of a response it makes the HTTP/2 server reset the
/// stream instead of answering.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reset(pub(crate) h2::Reason);

impl Reset {
    /// The code on the wire.
    #[must_use]
    pub fn code(self) -> u32 {
        self.0.into()
    }

    /// Whether the peer says that it has not looked at the request.
    #[must_use]
    pub fn is_refused(self) -> bool {
        self.0 == h2::Reason::REFUSED_STREAM
    }
}

impl fmt::Debug for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reset({:?})", self.0)
    }
}

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream reset: {}", self.0.description())
    }
}
