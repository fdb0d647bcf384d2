//! What a rule does with a request besides sending it on.
//!
//! Filters run in their order, once the request is authorized; the first that has an answer of
//! its own ends it.

use std::{borrow::Cow, fmt::Write, num::NonZeroU32, sync::Arc};

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header,
    uri::{Authority, Scheme},
};
use tulle_api::{grpc_route, http_route, opaque_route, outbound};
use tulle_core::{Reason, Refusal};

use crate::{
    Backend, Facts, Invalid, PathMatched,
    invalid::{At, each, required},
    wire,
};

/// Something that a rule or a backend does to a request or its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Answer with a failure.
    Fail(FailureInjector),
    /// Send the client elsewhere.
    Redirect(Redirect),
    /// Change the request's header.
    RequestHeaders(HeaderModifier),
    /// Change the response's header.
    ResponseHeaders(HeaderModifier),
    /// Send the request on under another host or path.
    Rewrite(Rewrite),
    /// Send a copy elsewhere too.
    Mirror(Mirror),
}

/// What is answered in place of the application.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A failure with an HTTP status, or a bug in a redirect.
    Refuse(Refusal),
    /// A failure with a gRPC status of its own.
    GrpcStatus {
        /// As the policy has it; not every value is a code that gRPC knows.
        code: u16,
        /// For `grpc-message` and `l5d-proxy-error`.
        message: Arc<str>,
    },
    /// A redirect.
    Redirect {
        /// A 3xx.
        status: StatusCode,
        /// For `location`.
        location: HeaderValue,
    },
}

/// Run the filters of a rule, or of its backend, over a request. `random` gives uniformly
/// distributed numbers and is only asked where a filter has a ratio. Returns what of the path
/// as it is now counts as matched, for the filters that come after these. Mirrors are not
/// looked at: [`mirrors`] are for whoever can send.
///
/// # Errors
/// What to answer, where a filter ends the request.
pub fn apply_request<B>(
    filters: &[Filter],
    mut matched: PathMatched,
    request: &mut Request<B>,
    mut random: impl FnMut() -> u64,
) -> Result<PathMatched, Answer> {
    for filter in filters {
        match filter {
            Filter::Fail(failure) => failure.apply(&mut random).map_or(Ok(()), Err)?,
            Filter::Redirect(redirect) => {
                redirect
                    .apply(&Facts::of(request), matched)
                    .map_or(Ok(()), Err)?;
            }
            Filter::RequestHeaders(modifier) => modifier.apply(request.headers_mut()),
            Filter::Rewrite(rewrite) => matched = rewrite.apply(request, matched)?,
            Filter::ResponseHeaders(_) | Filter::Mirror(_) => {}
        }
    }
    Ok(matched)
}

/// The backends that get a copy of this request. `random` is as for [`apply_request`].
pub fn mirrors(
    filters: &[Filter],
    mut random: impl FnMut() -> u64,
) -> impl Iterator<Item = &Arc<Backend>> {
    filters.iter().filter_map(move |filter| match filter {
        Filter::Mirror(Mirror { backend, ratio }) => {
            its_turn(*ratio, &mut random).then_some(backend)
        }
        _ => None,
    })
}

/// Run the filters of a rule, or of its backend, over the header of a response.
pub fn apply_response(filters: &[Filter], headers: &mut HeaderMap) {
    for filter in filters {
        if let Filter::ResponseHeaders(modifier) = filter {
            modifier.apply(headers);
        }
    }
}

/// A failure that is no fault of the application: for tests, and how the control plane says
/// that a backend does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureInjector {
    /// The status to answer with.
    pub status: FailureStatus,
    /// The reason, as the control plane words it.
    pub message: Arc<str>,
    /// In how many of how many cases; always where absent.
    ratio: Option<(u32, NonZeroU32)>,
}

/// The status of an injected failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureStatus {
    /// Of an HTTP route.
    Http(StatusCode),
    /// Of a gRPC route.
    Grpc(u16),
}

impl FailureInjector {
    fn http(wire: &http_route::HttpFailureInjector) -> Result<Self, Invalid> {
        let status = u16::try_from(wire.status)
            .ok()
            .and_then(|code| StatusCode::from_u16(code).ok());
        let status =
            status.ok_or_else(|| Invalid::new(format_args!("{} is no status", wire.status)))?;
        Ok(Self {
            status: FailureStatus::Http(status),
            message: legible(&wire.message),
            ratio: wire.ratio.map(ratio).transpose()?,
        })
    }

    fn grpc(wire: &grpc_route::GrpcFailureInjector) -> Result<Self, Invalid> {
        let code = u16::try_from(wire.code)
            .map_err(|_| Invalid::new(format_args!("{} is no gRPC status", wire.code)))?;
        Ok(Self {
            status: FailureStatus::Grpc(code),
            message: legible(&wire.message),
            ratio: wire.ratio.map(ratio).transpose()?,
        })
    }

    /// The failure, where it is this request's turn.
    pub fn apply(&self, random: impl FnOnce() -> u64) -> Option<Answer> {
        if !its_turn(self.ratio, random) {
            return None;
        }
        Some(match self.status {
            FailureStatus::Grpc(code) => Answer::GrpcStatus {
                code,
                message: self.message.clone(),
            },
            FailureStatus::Http(status) => {
                let message = Cow::Owned(self.message.to_string());
                let mut refusal = Refusal::new(Reason::FailureInjected, message);
                refusal.status = Some(status);
                Answer::Refuse(refusal)
            }
        })
    }
}

/// Whether it is this request's turn; always where there is no ratio.
fn its_turn(ratio: Option<(u32, NonZeroU32)>, random: impl FnOnce() -> u64) -> bool {
    ratio.is_none_or(|(numerator, denominator)| {
        random() % u64::from(denominator.get()) < u64::from(numerator)
    })
}

fn ratio(wire: http_route::Ratio) -> Result<(u32, NonZeroU32), Invalid> {
    let denominator = NonZeroU32::new(wire.denominator);
    Ok((
        wire.numerator,
        required(denominator, "the denominator of the ratio")?,
    ))
}

/// The message becomes a header field's value, where control characters are not allowed.
fn legible(message: &str) -> Arc<str> {
    message.replace(|c: char| c.is_control(), " ").into()
}

/// Changes to a header: values are added, then replaced, then fields removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    add: Box<[(HeaderName, HeaderValue)]>,
    set: Box<[(HeaderName, HeaderValue)]>,
    remove: Box<[HeaderName]>,
}

impl HeaderModifier {
    fn new(
        add: Option<tulle_api::http_types::Headers>,
        set: Option<tulle_api::http_types::Headers>,
        remove: Vec<String>,
    ) -> Result<Self, Invalid> {
        Ok(Self {
            add: wire::headers("add", add)?,
            set: wire::headers("set", set)?,
            remove: each("remove", remove, |name| wire::header_name(&name))?,
        })
    }

    /// Change a header.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

/// Where to send the client instead; what is absent stays as in the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    scheme: Option<Scheme>,
    host: Option<Box<str>>,
    port: Option<u16>,
    path: Option<PathModifier>,
    status: StatusCode,
}

/// What a redirect or a rewrite does to the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathModifier {
    /// Replace all of it.
    Full(Box<str>),
    /// Replace what the rule's prefix matched.
    Prefix(Box<str>),
}

impl Redirect {
    /// Changes nothing.
    const NOWHERE: Self = Self {
        scheme: None,
        host: None,
        port: None,
        path: None,
        status: StatusCode::MOVED_PERMANENTLY,
    };

    fn new(wire: http_route::RequestRedirect) -> Result<Self, Invalid> {
        let host = host(&wire.host)?;
        let port = wire::port(wire.port)?;
        let status = match wire.status {
            0 => Some(StatusCode::MOVED_PERMANENTLY),
            code => u16::try_from(code)
                .ok()
                .and_then(|code| StatusCode::from_u16(code).ok()),
        };
        let status = status.filter(StatusCode::is_redirection);
        Ok(Self {
            scheme: wire.scheme.map(wire::scheme).transpose()?,
            host: host.map(|host| host.as_str().into()),
            port: (port != 0).then_some(port),
            path: wire.path.map(PathModifier::new).transpose()?,
            status: status.ok_or_else(|| {
                Invalid::new(format_args!("{} is no status of a redirect", wire.status))
            })?,
        })
    }

    /// The redirect; none where it would lead to where the request already goes.
    #[must_use]
    pub fn apply(&self, request: &Facts<'_>, matched: PathMatched) -> Option<Answer> {
        let location = self.location(request, matched);
        if location.is_some() && location == Self::NOWHERE.location(request, matched) {
            return None;
        }
        let location = location.and_then(|location| HeaderValue::try_from(location).ok());
        Some(if let Some(location) = location {
            Answer::Redirect {
                status: self.status,
                location,
            }
        } else {
            let message = "unexpected error: the redirect leads nowhere";
            Answer::Refuse(Refusal::new(Reason::Unexpected, message))
        })
    }

    fn location(&self, request: &Facts<'_>, matched: PathMatched) -> Option<String> {
        let authority = authority(request);
        let scheme = self.scheme.as_ref().unwrap_or_else(|| scheme(request));
        let host = match &self.host {
            Some(host) => host,
            None => authority.as_ref()?.host(),
        };
        // A port belongs to the scheme and host that it was given with.
        let kept = if self.scheme.is_none() && self.host.is_none() {
            authority.as_ref().and_then(Authority::port_u16)
        } else {
            None
        };
        let mut location = format!("{scheme}://{host}");
        if let Some(port) = self
            .port
            .or(kept)
            .filter(|port| Some(*port) != well_known(scheme))
        {
            let _ = write!(location, ":{port}");
        }
        let path = request.uri.path();
        match &self.path {
            None => location.push_str(path),
            Some(modifier) => {
                let (begin, rest) = modifier.parts(path, matched)?;
                location.push_str(begin);
                location.push_str(rest);
            }
        }
        if let Some(query) = request.uri.query() {
            let _ = write!(location, "?{query}");
        }
        Some(location)
    }
}

impl PathModifier {
    fn new(wire: http_route::PathModifier) -> Result<Self, Invalid> {
        use http_route::path_modifier::Replace;
        Ok(match required(wire.replace, "the kind of the path")? {
            Replace::Full(path) => Self::Full(absolute(path)?),
            Replace::Prefix(path) => Self::Prefix(absolute(path)?),
        })
    }

    /// The new path in two parts: what takes the place of what was matched, and the rest. None
    /// where the rule did not match a prefix.
    fn parts<'a>(&'a self, path: &'a str, matched: PathMatched) -> Option<(&'a str, &'a str)> {
        match (self, matched) {
            (Self::Full(full), _) => Some((full, "")),
            (Self::Prefix(prefix), PathMatched::Prefix(length)) => {
                let rest = path.get(length..)?;
                let begin = match rest.strip_prefix('/') {
                    Some(_) => prefix.strip_suffix('/').unwrap_or(prefix),
                    None => prefix,
                };
                Some((begin, rest))
            }
            (Self::Prefix(_), PathMatched::Whole) => None,
        }
    }
}

/// Under which host and path a request goes on; what is absent stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    host: Option<Authority>,
    path: Option<PathModifier>,
}

impl Rewrite {
    fn new(wire: http_route::UrlRewrite) -> Result<Self, Invalid> {
        Ok(Self {
            host: host(&wire.host)?,
            path: wire.path.map(PathModifier::new).transpose()?,
        })
    }

    /// Change the request. Returns what of its new path counts as matched.
    ///
    /// # Errors
    /// Where the rule did not match the prefix that is to be replaced.
    pub fn apply<B>(
        &self,
        request: &mut Request<B>,
        matched: PathMatched,
    ) -> Result<PathMatched, Answer> {
        let mut now = matched;
        let mut parts = request.uri().clone().into_parts();
        if let Some(modifier) = &self.path {
            let uri = request.uri();
            let new = modifier.parts(uri.path(), matched).map(|(begin, rest)| {
                now = match modifier {
                    PathModifier::Full(_) => PathMatched::Whole,
                    PathModifier::Prefix(_) => PathMatched::Prefix(begin.len()),
                };
                match uri.query() {
                    Some(query) => format!("{begin}{rest}?{query}"),
                    None => format!("{begin}{rest}"),
                }
            });
            parts.path_and_query = Some(
                new.and_then(|new| new.try_into().ok())
                    .ok_or_else(Self::nowhere)?,
            );
        }
        if let Some(host) = &self.host {
            if parts.authority.is_some() {
                parts.authority = Some(host.clone());
            }
            if parts.authority.is_none() || request.headers().contains_key(header::HOST) {
                let value = HeaderValue::from_str(host.as_str()).map_err(|_| Self::nowhere())?;
                request.headers_mut().insert(header::HOST, value);
            }
        }
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Self::nowhere())?;
        Ok(now)
    }

    fn nowhere() -> Answer {
        let message = "unexpected error: the rewrite leads nowhere";
        Answer::Refuse(Refusal::new(Reason::Unexpected, message))
    }
}

/// Who gets a copy of a share of the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Where the copies go.
    pub backend: Arc<Backend>,
    /// Of how many of how many; of all where absent.
    ratio: Option<(u32, NonZeroU32)>,
}

impl Mirror {
    fn new(wire: outbound::RequestMirror) -> Result<Self, Invalid> {
        Ok(Self {
            backend: Backend::new(required(wire.backend, "backend")?)?,
            ratio: wire.ratio.map(ratio).transpose()?,
        })
    }
}

/// A host without a port; none where the text is empty.
fn host(text: &str) -> Result<Option<Authority>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse::<Authority>()
        .ok()
        .filter(|authority| authority.host() == text)
        .map(Some)
        .ok_or_else(|| Invalid::new(format_args!("{text:?} is no host")))
}

fn absolute(path: String) -> Result<Box<str>, Invalid> {
    let whole = path.starts_with('/') && path.parse::<Uri>().is_ok_and(|uri| uri.path() == path);
    if whole {
        Ok(path.into())
    } else {
        Err(Invalid::new(format_args!("{path:?} is no absolute path")))
    }
}

fn scheme<'a>(request: &Facts<'a>) -> &'a Scheme {
    request.uri.scheme().unwrap_or(&Scheme::HTTP)
}

fn authority(request: &Facts<'_>) -> Option<Authority> {
    match request.uri.authority() {
        Some(authority) => Some(authority.clone()),
        None => Authority::try_from(request.headers.get(http::header::HOST)?.as_bytes()).ok(),
    }
}

fn well_known(scheme: &Scheme) -> Option<u16> {
    match scheme.as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// What stands in the way of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TcpFilter {
    /// The route does not make sense; why, in the control plane's words.
    Invalid(Arc<str>),
    /// It may not pass.
    Forbidden,
}

macro_rules! decode {
    ($(#[$doc:meta])* $name:ident, $wire:ty, $kind:path, { $($pattern:pat => $filter:expr),* $(,)? }) => {
        $(#[$doc])*
        pub(crate) fn $name(wire: $wire) -> Result<Filter, Invalid> {
            use $kind as Kind;
            Ok(match required(wire.kind, "the kind of the filter")? {
                $($pattern => $filter),*
            })
        }
    };
}

impl Filter {
    decode! {
        inbound_http, tulle_api::inbound::http_route::Filter,
        tulle_api::inbound::http_route::filter::Kind, {
            Kind::FailureInjector(failure) => Self::Fail(FailureInjector::http(&failure)?),
            Kind::RequestHeaderModifier(headers) => Self::request_headers(headers)?,
            Kind::Redirect(redirect) => Self::Redirect(Redirect::new(redirect).at("redirect")?),
        }
    }

    decode! {
        inbound_grpc, tulle_api::inbound::grpc_route::Filter,
        tulle_api::inbound::grpc_route::filter::Kind, {
            Kind::FailureInjector(failure) => Self::Fail(FailureInjector::grpc(&failure)?),
            Kind::RequestHeaderModifier(headers) => Self::request_headers(headers)?,
        }
    }

    decode! {
        outbound_http, tulle_api::outbound::http_route::Filter,
        tulle_api::outbound::http_route::filter::Kind, {
            Kind::FailureInjector(failure) => Self::Fail(FailureInjector::http(&failure)?),
            Kind::RequestHeaderModifier(headers) => Self::request_headers(headers)?,
            Kind::Redirect(redirect) => Self::Redirect(Redirect::new(redirect).at("redirect")?),
            Kind::UrlRewrite(rewrite) => Self::Rewrite(Rewrite::new(rewrite).at("url_rewrite")?),
            Kind::RequestMirror(mirror) => Self::Mirror(Mirror::new(mirror).at("request_mirror")?),
            Kind::ResponseHeaderModifier(headers) => Self::ResponseHeaders(
                HeaderModifier::new(headers.add, headers.set, headers.remove)?,
            ),
        }
    }

    decode! {
        outbound_grpc, tulle_api::outbound::grpc_route::Filter,
        tulle_api::outbound::grpc_route::filter::Kind, {
            Kind::FailureInjector(failure) => Self::Fail(FailureInjector::grpc(&failure)?),
            Kind::RequestHeaderModifier(headers) => Self::request_headers(headers)?,
            Kind::ResponseHeaderModifier(headers) => Self::ResponseHeaders(
                HeaderModifier::new(headers.add, headers.set, headers.remove)?,
            ),
            Kind::RequestMirror(mirror) => Self::Mirror(Mirror::new(mirror).at("request_mirror")?),
        }
    }

    fn request_headers(wire: http_route::RequestHeaderModifier) -> Result<Self, Invalid> {
        Ok(Self::RequestHeaders(HeaderModifier::new(
            wire.add,
            wire.set,
            wire.remove,
        )?))
    }
}

impl TcpFilter {
    /// The refusal of a connection.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Invalid(why) => {
                Refusal::new(Reason::BackendInvalid, format!("invalid backend: {why}"))
            }
            Self::Forbidden => Refusal::new(Reason::Unauthorized, "forbidden"),
        }
    }

    pub(crate) fn opaque(wire: tulle_api::outbound::opaque_route::Filter) -> Result<Self, Invalid> {
        use tulle_api::outbound::opaque_route::filter::Kind;
        match required(wire.kind, "the kind of the filter")? {
            Kind::Invalid(invalid) => Ok(Self::invalid(&invalid)),
            Kind::Forbidden(_) => Ok(Self::Forbidden),
        }
    }

    pub(crate) fn tls(wire: tulle_api::outbound::tls_route::Filter) -> Result<Self, Invalid> {
        use tulle_api::outbound::tls_route::filter::Kind;
        match required(wire.kind, "the kind of the filter")? {
            Kind::Invalid(invalid) => Ok(Self::invalid(&invalid)),
            Kind::Forbidden(_) => Ok(Self::Forbidden),
        }
    }

    fn invalid(wire: &opaque_route::Invalid) -> Self {
        Self::Invalid(legible(&wire.message))
    }
}
