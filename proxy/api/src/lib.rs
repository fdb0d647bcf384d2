//! The wire: messages and services between the two planes, generated from `proto/`.
//!
//! This crate holds no behaviour. Decoding into types that cannot be wrong is the work of
//! `policy` and `discovery`.

#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::all,
    reason = "generated code; the documentation is in proto/"
)]

macro_rules! include_proto {
    ($package:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
    };
}

/// The stock protocol.
pub mod io {
    pub mod linkerd {
        pub mod proxy {
            pub mod net {
                include_proto!("io.linkerd.proxy.net");
            }
            pub mod meta {
                include_proto!("io.linkerd.proxy.meta");
            }
            pub mod http_types {
                include_proto!("io.linkerd.proxy.http_types");
            }
            pub mod http_route {
                include_proto!("io.linkerd.proxy.http_route");
            }
            pub mod grpc_route {
                include_proto!("io.linkerd.proxy.grpc_route");
            }
            pub mod tls_route {
                include_proto!("io.linkerd.proxy.tls_route");
            }
            pub mod opaque_route {
                include_proto!("io.linkerd.proxy.opaque_route");
            }
            pub mod identity {
                include_proto!("io.linkerd.proxy.identity");
            }
            pub mod destination {
                include_proto!("io.linkerd.proxy.destination");
            }
            pub mod inbound {
                include_proto!("io.linkerd.proxy.inbound");
            }
            pub mod outbound {
                include_proto!("io.linkerd.proxy.outbound");
            }
            pub mod tap {
                include_proto!("io.linkerd.proxy.tap");
            }
        }
    }
}

/// The header between two proxies.
pub mod transport {
    include_proto!("transport.l5d.io");
}

/// What a collector of traces is sent.
pub mod otlp {
    include_proto!("opentelemetry.proto.collector.trace.v1");
}

/// Our own service beside the stock ones.
pub mod trust {
    include_proto!("tulle.trust");
}

pub use io::linkerd::proxy::{
    destination, grpc_route, http_route, http_types, identity, inbound, meta, net, opaque_route,
    outbound, tap, tls_route,
};
