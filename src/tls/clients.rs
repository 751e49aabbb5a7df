//! Client certificates: asked for, never demanded, and judged elsewhere.
//!
//! The handshake proves no more than that the client holds the key of what it shows;
//! whose certificate that is, the identity verifier says on each request. A refusal here
//! would be a TLS alert, which tells a device nothing; there it is a plain 403.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    SignatureScheme,
};
use schema::x509::{Certificate, RSA_ENCRYPTION, SubjectPublicKey};

/// Lets in whoever holds the key of the certificate shown.
#[derive(Debug)]
pub(super) struct Possession {
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Possession {
    /// Asks for certificates of these authorities, each a whole `Name` in DER.
    pub(super) fn of(authorities: Vec<Vec<u8>>, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self {
            hints: authorities
                .into_iter()
                .map(DistinguishedName::from)
                .collect(),
            algorithms,
        }
    }

    /// Checks by the reader that judges identities: webpki's own refuses certificates
    /// that former servers' CAs have issued (version 1, long serial numbers, critical
    /// extensions it does not know).
    fn check(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        proof: &DigitallySignedStruct,
        candidates: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<HandshakeSignatureValid, Error> {
        let certificate =
            Certificate::parse(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let key = certificate.key;
        let id = algorithm_id(&key);
        let genuine = candidates
            .iter()
            .filter(|candidate| *candidate.public_key_alg_id() == *id)
            .any(|candidate| {
                let verified = candidate.verify_signature(key.bytes, message, proof.signature());
                verified.is_ok()
            });
        if !genuine {
            return Err(CertificateError::BadSignature.into());
        }
        Ok(HandshakeSignatureValid::assertion())
    }

    fn candidates(
        &self,
        scheme: SignatureScheme,
    ) -> Result<&'static [&'static dyn SignatureVerificationAlgorithm], Error> {
        self.algorithms
            .mapping
            .iter()
            .find(|(offered, _)| *offered == scheme)
            .map(|(_, candidates)| *candidates)
            .ok_or_else(|| PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }
}

impl ClientCertVerifier for Possession {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let bytes = others.iter().fold(leaf.len(), |sum, der| sum + der.len());
        if others.len() >= MAX_CHAIN || bytes > MAX_CHAIN_BYTES {
            return Err(Error::General(
                "the client's certificate chain is too long".to_owned(),
            ));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        proof: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let candidates = self.candidates(proof.scheme)?;
        self.check(message, certificate, proof, candidates)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        proof: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if ONLY_TLS12.contains(&proof.scheme) {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        // In TLS 1.3 a scheme names one curve, which the first candidate is for.
        let candidates = self.candidates(proof.scheme)?;
        let first = candidates.get(..1).unwrap_or(candidates);
        self.check(message, certificate, proof, first)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The content of the key's AlgorithmIdentifier as certificates must write it
/// (RFC 3279): NULL parameters for RSA, the curve for EC, none for others.
fn algorithm_id(key: &SubjectPublicKey<'_>) -> Vec<u8> {
    let mut id = oid(key.algorithm.0);
    match key.curve {
        Some(curve) => id.extend(oid(curve.0)),
        None if key.algorithm == RSA_ENCRYPTION => id.extend([0x05, 0x00]),
        None => {}
    }
    id
}

fn oid(content: &[u8]) -> Vec<u8> {
    // None that a candidate has is longer than 127 octets.
    let length = u8::try_from(content.len()).unwrap_or(u8::MAX);
    let mut der = vec![0x06, length];
    der.extend(content);
    der
}

/// Certificates a client may send, its own among them.
const MAX_CHAIN: usize = 10;
/// What they may weigh together.
const MAX_CHAIN_BYTES: usize = 64 << 10;
/// Schemes offered for TLS 1.2 which TLS 1.3 does not have (RFC 8446, 4.2.3).
const ONLY_TLS12: [SignatureScheme; 5] = [
    SignatureScheme::RSA_PKCS1_SHA1,
    SignatureScheme::ECDSA_SHA1_Legacy,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];
