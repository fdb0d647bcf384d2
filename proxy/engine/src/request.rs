use http::{HeaderMap, HeaderName, HeaderValue, Version, header::HOST};
use pyo3::{PyResult, exceptions::PyValueError, pyclass, pymethods};
use tulle_policy::{Answer, Filter, PathMatched, apply_request};

/// A request's head.
#[pyclass(frozen, get_all)]
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    path: String,
    authority: String,
    headers: Vec<(String, String)>,
    pub(crate) http2: bool,
}

#[pymethods]
impl Request {
    #[new]
    #[pyo3(signature = (method, path, *, authority, headers = Vec::new(), http2 = false))]
    fn new(
        method: String,
        path: String,
        authority: String,
        headers: Vec<(String, String)>,
        http2: bool,
    ) -> PyResult<Self> {
        let request = Self {
            method,
            path,
            authority,
            headers,
            http2,
        };
        request.to_http()?;
        Ok(request)
    }

    fn __repr__(&self) -> String {
        format!("{self:?}")
    }
}

impl Request {
    /// As the proxy reads it: HTTP/1 names its host in a field, HTTP/2 in the target.
    pub(crate) fn to_http(&self) -> PyResult<http::Request<()>> {
        let mut builder = http::Request::builder().method(self.method.as_str());
        builder = if self.http2 {
            builder
                .version(Version::HTTP_2)
                .uri(format!("http://{}{}", self.authority, self.path))
        } else {
            builder.uri(&self.path)
        };
        let mut request = builder.body(()).map_err(wrong)?;
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(wrong)?;
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(wrong)?;
            request.headers_mut().append(name, value);
        }
        if !self.http2 && !self.authority.is_empty() && !request.headers().contains_key(HOST) {
            let host = HeaderValue::from_str(&self.authority).map_err(wrong)?;
            request.headers_mut().insert(HOST, host);
        }
        Ok(request)
    }

    /// What a filter has made of it.
    pub(crate) fn of(request: &http::Request<()>) -> Self {
        let uri = request.uri();
        let host = request.headers().get(HOST).map(text);
        let authority = uri.authority().map(ToString::to_string).or(host);
        Self {
            method: request.method().to_string(),
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .into(),
            authority: authority.unwrap_or_default(),
            headers: fields(request.headers()),
            http2: request.version() == Version::HTTP_2,
        }
    }
}

fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let all = headers.iter().filter(|(name, _)| *name != HOST);
    all.map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn wrong(error: impl std::error::Error) -> pyo3::PyErr {
    PyValueError::new_err(error.to_string())
}

/// What a proxy answers by itself, in place of the application.
#[derive(Clone, Debug)]
pub(crate) struct OwnAnswer {
    pub(crate) reason: Option<&'static str>,
    pub(crate) message: Option<String>,
    pub(crate) status: u16,
    pub(crate) grpc_status: Option<u16>,
    pub(crate) location: Option<String>,
}

impl OwnAnswer {
    pub(crate) fn refusal(refusal: &tulle_core::Refusal) -> Self {
        Self {
            reason: Some(refusal.reason.code()),
            message: Some(refusal.message.to_string()),
            status: refusal.status().as_u16(),
            grpc_status: Some(refusal.reason.grpc_code()),
            location: None,
        }
    }

    fn of(answer: &Answer) -> Self {
        match answer {
            Answer::Refuse(refusal) => Self::refusal(refusal),
            // Carried in the trailers of a response whose HTTP status says nothing.
            Answer::GrpcStatus { code, message } => Self {
                reason: Some(tulle_core::Reason::FailureInjected.code()),
                message: Some(message.to_string()),
                status: 200,
                grpc_status: Some(*code),
                location: None,
            },
            Answer::Redirect { status, location } => Self {
                reason: None,
                message: None,
                status: status.as_u16(),
                grpc_status: None,
                location: Some(text(location)),
            },
        }
    }
}

/// Run filters; a failure that is injected now and then is taken to be injected.
pub(crate) fn filtered(
    filters: &[Filter],
    matched: PathMatched,
    request: &mut http::Request<()>,
) -> Option<OwnAnswer> {
    let ended = apply_request(filters, matched, request, || 0);
    ended.err().map(|answer| OwnAnswer::of(&answer))
}
