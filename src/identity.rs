//! Tells which device a request comes from: verifies its identity certificate.
//!
//! The certificate arrives by TLS, inside an `Mdm-Signature`, or in the header
//! of a listed proxy; whichever are present must be the same one. The device
//! doors call [`IdentityVerifier::verify`] on every request, since TLS
//! resumption skips the handshake's own check. Says who the device is, not
//! whether it is enrolled: binding a leaf to an enrollment is a rule above.

mod attached;
mod authorities;
mod proxy_header;
mod signature;

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use ipnet::IpNet;
use quick_cache::sync::Cache;
use schema::cms::{CmsError, SignedData};
use schema::x509::Certificate;
use thiserror::Error;

pub use self::attached::{MessageError, MessageVerifier, SignedMessage};
use self::authorities::Authorities;
pub use self::authorities::AuthorityError;
use self::signature::PreparedKey;

/// A verified identity certificate, as one request presented it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceIdentity {
    /// SHA-256 of the certificate's DER: what enrollments are bound to.
    pub leaf: [u8; 32],
    /// The certificate itself.
    pub der: Arc<[u8]>,
    /// How it came.
    pub source: Source,
    /// Which authorities issued it.
    pub issued_by: IssuedBy,
    /// Last second of validity, Unix time.
    pub not_after: i64,
    /// Serial number in upper-case hex.
    pub serial: String,
}

/// How an identity was presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// As the client certificate of our own TLS listener.
    ClientCertificate,
    /// As the signer of an `Mdm-Signature`.
    Signature,
    /// In the header of a listed proxy that did the TLS for us.
    ProxyHeader,
}

/// Whose authority issued an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssuedBy {
    /// One of our device CAs.
    Ours,
    /// A CA we accept without holding its key, such as a former server's.
    Extra,
}

/// What a request offers in proof of its identity.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The other end of the connection, which may be a proxy.
    pub peer: IpAddr,
    /// DER of the client certificate of our TLS listener.
    pub tls_leaf: Option<&'a [u8]>,
    /// Value of `Mdm-Signature`.
    pub signature_header: Option<&'a [u8]>,
    /// Value of the header named by [`IdentityVerifier::client_cert_header`],
    /// which the caller refuses when it comes more than once.
    pub proxy_header: Option<&'a [u8]>,
    /// The request body, exactly as received.
    pub body: &'a [u8],
}

/// Why a request has no identity. The device or its proxy is at fault; the
/// answer is a plain 403.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// The request offers no proof at all.
    #[error("request carries no device identity")]
    Missing,
    /// The sender encoded something in a form that is not read here.
    #[error("device sent a malformed {what}")]
    Malformed {
        /// What could not be read.
        what: &'static str,
    },
    /// `Mdm-Signature` is not a SignedData that can be verified.
    #[error("device sent an unreadable Mdm-Signature: {0}")]
    UnreadableSignature(CmsError),
    /// The signature does not match the body.
    #[error("the signature does not match the body")]
    BadSignature,
    /// None of the configured authorities issued the certificate.
    #[error("identity certificate was not issued by a configured authority")]
    ForeignIssuer,
    /// TLS, signature and proxy header name different certificates.
    #[error("request carries more than one device identity")]
    Disagree,
    /// The certificate is an authority's, or not for TLS clients.
    #[error("certificate is not a client's")]
    NotClient,
}

/// Verifies identities against a fixed set of authorities, and remembers the
/// ones it accepted. A change of the configuration is a new verifier.
#[derive(Debug)]
pub struct IdentityVerifier {
    authorities: Authorities,
    trusted_proxies: Vec<IpNet>,
    client_cert_header: Option<String>,
    /// By SHA-256 of the certificate.
    leaves: Cache<[u8; 32], Arc<Leaf>>,
    /// By SHA-256 of the header's value, so a hit is no more than a hash.
    by_header: Cache<[u8; 32], Arc<DeviceIdentity>>,
}

/// A certificate that one of the authorities issued to a client.
#[derive(Debug)]
struct Leaf {
    hash: [u8; 32],
    der: Arc<[u8]>,
    issued_by: IssuedBy,
    not_after: i64,
    serial: String,
    key: PreparedKey,
}

impl DeviceIdentity {
    /// Whether the certificate has run out. An expired identity is still one:
    /// to refuse it would lock the device out for good, so it is renewed.
    #[must_use]
    pub fn expired(&self, now_unix: i64) -> bool {
        now_unix > self.not_after
    }
}

impl IdentityVerifier {
    /// Takes the authorities as PEM files of one or more certificates each, an
    /// intermediate next to its root: a leaf is accepted from every one of
    /// them. The proxies and the header name say whose word replaces TLS.
    ///
    /// # Errors
    /// [`AuthorityError`] if a file is no PEM or holds something other than
    /// authorities.
    pub fn new(
        our_cas: &[Vec<u8>],
        extra_cas: &[Vec<u8>],
        trusted_proxies: Vec<IpNet>,
        client_cert_header: Option<String>,
    ) -> Result<Self, AuthorityError> {
        Ok(Self {
            authorities: Authorities::new(our_cas, extra_cas)?,
            trusted_proxies,
            client_cert_header,
            leaves: Cache::new(CACHED_LEAVES),
            by_header: Cache::new(CACHED_LEAVES),
        })
    }

    /// The header in which a listed proxy passes the client certificate.
    #[must_use]
    pub fn client_cert_header(&self) -> Option<&str> {
        self.client_cert_header.as_deref()
    }

    /// The names of the authorities, each a whole `Name` in DER: what a TLS listener
    /// asks clients for certificates of.
    #[must_use]
    pub fn authority_names(&self) -> Vec<Vec<u8>> {
        self.authorities.names()
    }

    /// Verifies all the evidence of one request and returns the one device it
    /// proves. The first of TLS, signature and proxy header gives the source.
    ///
    /// # Errors
    /// [`IdentityError`] if there is no evidence, any of it is wrong, or it
    /// names more than one certificate.
    pub fn verify(&self, evidence: &Evidence<'_>) -> Result<Arc<DeviceIdentity>, IdentityError> {
        self.examine(evidence, Some(evidence.body))
    }

    /// Says of a request whose body is still to come what [`Self::verify`] will
    /// say of it for certain: a signature is not checked, but who signed is.
    ///
    /// # Errors
    /// [`IdentityError`], as `verify` would give it whatever the body.
    pub fn foresee(&self, evidence: &Evidence<'_>) -> Result<(), IdentityError> {
        self.examine(evidence, None).map(drop)
    }

    fn examine(
        &self,
        evidence: &Evidence<'_>,
        body: Option<&[u8]>,
    ) -> Result<Arc<DeviceIdentity>, IdentityError> {
        let mut proven = None;
        if let Some(der) = evidence.tls_leaf {
            let identity = self.leaf(der)?.identity(Source::ClientCertificate);
            agree(&mut proven, Arc::new(identity))?;
        }
        if let Some(header) = evidence.signature_header {
            agree(&mut proven, Arc::new(self.signed(header, body)?))?;
        }
        if let Some(header) = self.proxy_header(evidence) {
            agree(&mut proven, self.vouched_for(header)?)?;
        }
        proven.ok_or(IdentityError::Missing)
    }

    /// The proxy header, if its sender may speak for a device and it says
    /// anything.
    fn proxy_header<'a>(&self, evidence: &Evidence<'a>) -> Option<&'a [u8]> {
        self.client_cert_header.as_ref()?;
        // A listener on `::` sees an IPv4 proxy as `::ffff:a.b.c.d`.
        let peer = evidence.peer.to_canonical();
        let listed = self.trusted_proxies.iter().any(|net| net.contains(&peer));
        let value = evidence.proxy_header.filter(|_| listed)?.trim_ascii();
        (!proxy_header::says_nothing(value)).then_some(value)
    }

    fn vouched_for(&self, header: &[u8]) -> Result<Arc<DeviceIdentity>, IdentityError> {
        if header.len() > MAX_HEADER {
            return Err(IdentityError::Malformed {
                what: "client certificate header",
            });
        }
        let key = sha256(header);
        if let Some(identity) = self.by_header.get(&key) {
            return Ok(identity);
        }
        let der = proxy_header::certificate(header).ok_or(IdentityError::Malformed {
            what: "client certificate header",
        })?;
        let identity = Arc::new(self.leaf(&der)?.identity(Source::ProxyHeader));
        self.by_header.insert(key, Arc::clone(&identity));
        Ok(identity)
    }

    /// The signer, who is proven only when there is a body to check.
    fn signed(&self, header: &[u8], body: Option<&[u8]>) -> Result<DeviceIdentity, IdentityError> {
        if header.len() > MAX_HEADER {
            return Err(IdentityError::Malformed {
                what: "Mdm-Signature",
            });
        }
        let encoding = proxy_header::base64(header).ok_or(IdentityError::Malformed {
            what: "Mdm-Signature",
        })?;
        let signed = SignedData::parse(&encoding).map_err(IdentityError::UnreadableSignature)?;
        let certificate = signed
            .signer_certificate()
            .map_err(IdentityError::UnreadableSignature)?;
        let leaf = self.leaf(certificate.raw)?;
        if let Some(body) = body {
            leaf.key.check_cms(&certificate.key, &signed, body)?;
        }
        Ok(leaf.identity(Source::Signature))
    }

    /// The leaf with this DER, judged once and then remembered.
    fn leaf(&self, der: &[u8]) -> Result<Arc<Leaf>, IdentityError> {
        let hash = sha256(der);
        if let Some(leaf) = self.leaves.get(&hash) {
            return Ok(leaf);
        }
        let leaf = Arc::new(self.judge(der, hash)?);
        self.leaves.insert(hash, Arc::clone(&leaf));
        Ok(leaf)
    }

    fn judge(&self, der: &[u8], hash: [u8; 32]) -> Result<Leaf, IdentityError> {
        const MALFORMED: IdentityError = IdentityError::Malformed {
            what: "identity certificate",
        };
        if der.len() > MAX_HEADER {
            return Err(MALFORMED);
        }
        let certificate = Certificate::parse(der).map_err(|_| MALFORMED)?;
        let authority = certificate.is_authority().map_err(|_| MALFORMED)?;
        let client = certificate.may_be_client().map_err(|_| MALFORMED)?;
        let issued_by = self.authorities.issuer_of(&certificate)?;
        if authority || !client {
            return Err(IdentityError::NotClient);
        }
        Ok(Leaf {
            hash,
            der: der.into(),
            issued_by,
            not_after: certificate.not_after,
            serial: certificate.serial_hex(),
            key: PreparedKey::default(),
        })
    }
}

impl Leaf {
    fn identity(&self, source: Source) -> DeviceIdentity {
        DeviceIdentity {
            leaf: self.hash,
            der: Arc::clone(&self.der),
            source,
            issued_by: self.issued_by,
            not_after: self.not_after,
            serial: self.serial.clone(),
        }
    }
}

/// Adds one proof to what is proven so far.
fn agree(
    proven: &mut Option<Arc<DeviceIdentity>>,
    identity: Arc<DeviceIdentity>,
) -> Result<(), IdentityError> {
    match proven {
        Some(first) if first.leaf != identity.leaf => return Err(IdentityError::Disagree),
        Some(_) => {}
        None => *proven = Some(identity),
    }
    Ok(())
}

fn sha256(octets: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, octets).as_ref());
    hash
}

/// Largest header value, and so largest certificate, that is looked at.
const MAX_HEADER: usize = 16 * 1024;
/// How many leaves, and how many header values, are remembered.
const CACHED_LEAVES: usize = 65_536;

#[cfg(test)]
mod tests;
