//! The signed requests of ACME (RFC 8555, section 6.2), read by the CA's side.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::sha::sha256;
use serde_json::{Value, json};

/// A public key of an account.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Jwk {
    x: String,
    y: String,
}

/// A request, taken apart and not yet believed.
pub(super) struct Jws {
    pub(super) header: Value,
    pub(super) payload: Vec<u8>,
    signed: String,
    signature: Vec<u8>,
}

impl Jws {
    pub(super) fn read(body: &[u8]) -> Self {
        let jws: Value = serde_json::from_slice(body).unwrap();
        let text = |key: &str| jws[key].as_str().unwrap();
        Self {
            header: serde_json::from_slice(&decoded(text("protected"))).unwrap(),
            payload: decoded(text("payload")),
            signed: format!("{}.{}", text("protected"), text("payload")),
            signature: decoded(text("signature")),
        }
    }

    /// The key it brings along.
    pub(super) fn key(&self) -> Option<Jwk> {
        let jwk = self.header.get("jwk")?;
        assert_eq!((&jwk["kty"], &jwk["crv"]), (&json!("EC"), &json!("P-256")));
        let text = |key: &str| jwk[key].as_str().unwrap().to_owned();
        Some(Jwk {
            x: text("x"),
            y: text("y"),
        })
    }

    pub(super) fn is_signed_by(&self, key: &Jwk) -> bool {
        let point = [vec![4], decoded(&key.x), decoded(&key.y)].concat();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        self.header["alg"] == "ES256" && key.verify(self.signed.as_bytes(), &self.signature).is_ok()
    }
}

impl Jwk {
    /// The digest a challenge certificate must carry (RFC 8737, section 3).
    pub(super) fn digest_of(&self, token: &str) -> [u8; 32] {
        let canonical = format!(
            r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#,
            self.x, self.y
        );
        let thumbprint = encoded(&sha256(canonical.as_bytes()));
        sha256(format!("{token}.{thumbprint}").as_bytes())
    }
}

pub(super) fn decoded(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

pub(super) fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
