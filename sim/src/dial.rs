//! Opens the connection a device talks over: TCP behind a proxy, or TLS, with
//! the device's identity as client certificate where that is its proof.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::error::SimError;
use crate::identity::Identity;
use crate::target::{Proof, Target};

/// A byte stream, encrypted or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What a device must know of a server to talk TLS to it.
#[derive(Clone, Debug)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    name: ServerName<'static>,
}

impl Trust {
    /// Trusts `root_pem` for the server called `host`.
    pub(crate) fn new(root_pem: &[u8], host: &str) -> Result<Self, SimError> {
        let mut roots = RootCertStore::empty();
        for root in openssl::x509::X509::stack_from_pem(root_pem)? {
            roots.add(CertificateDer::from(root.to_der()?))?;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| SimError::Target {
            url: host.to_owned(),
            why: "not a server name",
        })?;
        Ok(Self {
            roots: Arc::new(roots),
            name,
        })
    }

    fn config(&self, identity: Option<&Identity>) -> Result<ClientConfig, SimError> {
        let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots.clone());
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                let chain = vec![CertificateDer::from(identity.cert_der.to_vec())];
                let key = PrivatePkcs8KeyDer::from(identity.key_pkcs8_der()?);
                config.with_client_auth_cert(chain, PrivateKeyDer::from(key))?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Connects to `target` as `identity`.
pub(crate) async fn dial(
    target: &Target,
    identity: &Identity,
) -> Result<Box<dyn Stream>, SimError> {
    let tcp = TcpStream::connect(target.address).await?;
    tcp.set_nodelay(true)?;
    let Some(trust) = &target.trust else {
        return Ok(Box::new(tcp));
    };
    let shown = (target.proof == Proof::Tls).then_some(identity);
    let connector = TlsConnector::from(Arc::new(trust.config(shown)?));
    Ok(Box::new(connector.connect(trust.name.clone(), tcp).await?))
}
