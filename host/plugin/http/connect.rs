//! From the name of a server to a connection with one of its addresses, all of which have been looked at.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    sync::Arc,
};

use ipnet::IpNet;
use rustls::{ClientConfig, RootCertStore, client::Resumption, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::{Error, io::TokioIo};

use crate::{
    address::{Host, Server, refusal},
    io::BoxFuture,
};

/// Requests under way at the same time, of all calls: each may have a connection, which is an open file.
const OPEN: usize = 256;

/// Lookups at the same time. The system's resolver holds a thread for each, sometimes for half a minute, and
/// cannot be stopped.
const LOOKUPS: usize = 16;

/// Of the addresses of a name, so many are tried. The next request may find them in another order.
const TRIED_ADDRESSES: usize = 4;

/// How requests leave the host. One for the process.
pub struct Outbound {
    resolve: Resolve,
    tls: TlsConnector,
    open: Arc<Semaphore>,
}

/// Every address that a name stands for.
type Resolve = Box<dyn Fn(&str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Why no request can leave the host.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS for the requests of plugins: {0}")]
pub struct OutboundError(#[from] rustls::Error);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("cannot be resolved: {0}")]
    Unresolved(io::Error),
    #[error("its address {address} is {why}: name it in `private_addresses` if that is meant")]
    Forbidden { address: IpAddr, why: &'static str },
    #[error("cannot be reached: {0}")]
    Unreachable(io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Unresolved(_) => Self::DnsError { rcode: None, info_code: None },
            ConnectError::Forbidden { .. } => Self::DestinationIpProhibited,
            ConnectError::Unreachable(error) => Self::Connect(error),
            ConnectError::Tls(error) => Self::Tls(error),
        }
    }
}

/// A connection, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Outbound {
    /// By the system's own resolver and with the certificate authorities that the system trusts.
    ///
    /// # Errors
    /// When there is no TLS to be had.
    pub fn system() -> Result<Self, OutboundError> {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a certificate authority of the system cannot be read");
        }
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            tracing::warn!("the system trusts no certificate authority, so no plugin can send requests over https");
        }
        let lookups = Arc::new(Semaphore::new(LOOKUPS));
        Self::new(move |name| Box::pin(look_up(name.to_owned(), Arc::clone(&lookups))), roots)
    }

    /// By another resolver, and with other certificate authorities.
    ///
    /// # Errors
    /// As [`Outbound::system`].
    pub fn new(
        resolve: impl Fn(&str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync + 'static,
        roots: RootCertStore,
    ) -> Result<Self, OutboundError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A server could else tell that two objects, or two plugins, are of one host.
        tls.resumption = Resumption::disabled();
        Ok(Self {
            resolve: Box::new(resolve),
            tls: TlsConnector::from(Arc::new(tls)),
            open: Arc::new(Semaphore::new(OPEN)),
        })
    }

    /// A place among the requests of all calls.
    pub(super) async fn place(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        Arc::clone(&self.open).acquire_owned().await
    }

    /// Connects to the server at one of its addresses, all of which must be public or in a range of `named`.
    ///
    /// The name is resolved once, and what was looked at is what is connected to: a name that stands for
    /// something else a moment later gains nothing.
    pub(super) async fn connect(
        &self,
        server: &Server,
        named: &[IpNet],
    ) -> Result<TokioIo<Box<dyn Stream>>, ConnectError> {
        let addresses = self.addresses(&server.host, named).await?;
        let tcp = reach(&addresses, server.port).await.map_err(ConnectError::Unreachable)?;
        if !server.tls {
            return Ok(TokioIo::new(Box::new(tcp)));
        }
        let name = match &server.host {
            Host::Name(name) => {
                ServerName::try_from(name.clone()).map_err(|error| ConnectError::Tls(io::Error::other(error)))?
            }
            Host::Address(address) => ServerName::from(*address),
        };
        let tls = self.tls.connect(name, tcp).await.map_err(ConnectError::Tls)?;
        Ok(TokioIo::new(Box::new(tls)))
    }

    async fn addresses(&self, host: &Host, named: &[IpNet]) -> Result<Vec<IpAddr>, ConnectError> {
        let name = match host {
            // Whoever wrote an address into the list has named it.
            Host::Address(address) => return Ok(vec![*address]),
            Host::Name(name) => name,
        };
        let addresses = (self.resolve)(name).await.map_err(ConnectError::Unresolved)?;
        // One that is forbidden is enough: whoever answers for the name mixes them for a reason.
        for address in &addresses {
            if let Some(why) = refusal(*address, named) {
                return Err(ConnectError::Forbidden { address: *address, why });
            }
        }
        Ok(addresses)
    }
}

/// Asks the system's resolver, which blocks.
async fn look_up(name: String, lookups: Arc<Semaphore>) -> io::Result<Vec<IpAddr>> {
    let place = lookups.acquire_owned().await.map_err(io::Error::other)?;
    let found = spawn_blocking(move || {
        // Held here, so that a lookup that nobody waits for any more still counts.
        let _place = place;
        let found = (name.as_str(), 0).to_socket_addrs()?;
        Ok(found.map(|address| address.ip()).collect())
    });
    found.await.map_err(io::Error::other)?
}

async fn reach(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name stands for no address");
    for address in addresses.iter().take(TRIED_ADDRESSES) {
        match TcpStream::connect(SocketAddr::new(*address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
