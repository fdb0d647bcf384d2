//! Mesh TLS: who the peer is, proved, and a connection to it that nobody else can read.
//!
//! Decided here: TLS 1.3 only, certificates of P-256 and SHA-256 only, what a `ClientHello`
//! says, whether a certificate proves the expected name. Not decided here: who may connect
//! (`policy`), where certificates come from (`identity`).
//!
//! Everything made from one certificate lives and dies with its [`Credentials`], the session
//! tickets included: a new certificate or trust bundle means full handshakes, and connections
//! that exist stay as they are. A resumed session is let in only if the certificates that its
//! peer once proved still verify against today's roots and time. There is no early data.

#[cfg(test)]
mod authority;
mod connection;
mod credentials;
mod error;
mod hello;
mod io;
mod sessions;
mod store;
mod stream;
mod verify;

pub use connection::{Accepted, ClientIo, HANDSHAKE_TIMEOUT, ServerIo, accept, connect};
pub use credentials::{Credentials, CredentialsError, facts};
pub use error::TlsError;
pub use hello::{
    Begins, Hello, HelloError, HelloIo, HelloParser, HelloReader, MAX_HELLO, read_client_hello,
};
pub use io::Io;
pub use store::Store;
