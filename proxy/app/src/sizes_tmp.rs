#[cfg(test)]
mod tests {
    fn of<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize { size_of::<F>() }
    #[test]
    fn sizes() {
        println!("inbound {} outbound {}", of(tulle_inbound::serve), of(tulle_outbound::serve));
    }
}
#[cfg(test)]
mod more {
    use std::rc::Rc;
    use tulle_http::{http1::{self, Http1Options}, http2::{self, Http2Options}, Drain, Interim, Request, Response, Service, Body};
    struct S;
    impl Service for S {
        async fn call(&self, _r: Request, _i: Interim) -> Response { Response::new(Body::empty()) }
    }
    fn of<A, B, C, F: Future>(_: impl Fn(A, B, C) -> F) -> usize { size_of::<F>() }
    #[test]
    fn sizes_more() {
        static ONE: std::sync::LazyLock<Http1Options> = std::sync::LazyLock::new(Http1Options::default);
        static TWO: std::sync::LazyLock<Http2Options> = std::sync::LazyLock::new(Http2Options::default);
        println!("http1 {} http2 {}",
            of(|io: tokio::net::TcpStream, s: Rc<S>, d: Drain| http1::serve(io, s, &ONE, d)),
            of(|io: tokio::net::TcpStream, s: Rc<S>, d: Drain| http2::serve(io, s, &TWO, d)));
    }
}
