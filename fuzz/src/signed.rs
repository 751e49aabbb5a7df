//! The identity verifier: a certificate in a proxy's header, a signature over a body.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use openssl::base64::encode_block;
use reveille::identity::{Evidence, IdentityVerifier};
use sim::{CaKey, DeviceCa, KeyPool};

use crate::Reader;

/// The CA whose devices the seeds come from: kept, so that they are known again.
pub fn authority() -> DeviceCa {
    let directory = std::env::var_os("REVEILLE_FUZZ_CA").expect("REVEILLE_FUZZ_CA is set");
    let keys = Arc::new(KeyPool::growing(1));
    DeviceCa::open_or_create(&PathBuf::from(directory), CaKey::Rsa2048, keys).expect("a CA")
}

fn verifier() -> IdentityVerifier {
    let here = "127.0.0.1/32".parse().expect("a network");
    let header = Some("Client-Cert".to_owned());
    IdentityVerifier::new(&[authority().pem()], &[], vec![here], header).expect("a CA")
}

fn evidence(body: &[u8]) -> Evidence<'_> {
    Evidence {
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        tls_leaf: None,
        signature_header: None,
        proxy_header: None,
        body,
    }
}

/// A header of a proxy.
pub fn client_cert() -> Reader {
    let verifier = verifier();
    Box::new(move |data| {
        let _ = verifier.verify(&Evidence {
            proxy_header: Some(data),
            ..evidence(b"")
        });
    })
}

/// An `Mdm-Signature`: a header as it came, a message in its base64, or a body under a
/// genuine signature of another.
pub fn signature() -> Reader {
    let verifier = verifier();
    let identity = authority().issue("fuzzed").expect("an identity");
    let genuine = identity.sign(BODY).expect("a signature");
    Box::new(move |data| {
        let Some((how, data)) = data.split_first() else {
            return;
        };
        let message = encode_block(data);
        let (header, body) = match how % 3 {
            0 => (data, BODY),
            1 => (message.as_bytes(), BODY),
            _ => (genuine.as_bytes(), data),
        };
        let verified = verifier.verify(&Evidence {
            signature_header: Some(header),
            ..evidence(body)
        });
        if how % 3 == 2 {
            assert_eq!(
                verified.is_ok(),
                data == BODY,
                "a signature of another body"
            );
        }
    })
}

/// What the seeds sign.
pub const BODY: &[u8] = b"<plist version=\"1.0\"><dict/></plist>";
