//! Reads the client certificate out of a proxy's header, in the forms that
//! proxies use for it.
//!
//! Called by the identity verifier, once per distinct header value. Decodes
//! only; whether the proxy may speak and whose the certificate is, it does not
//! know.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The DER of the certificate in a header value without white space around it;
/// of several, the first. Accepts
/// - `:base64:` (RFC 9440),
/// - PEM, URL-escaped (nginx) or with its line breaks as spaces (Apache),
/// - base64 DER without armour, one or a comma-separated list (Traefik, HAProxy,
///   Caddy).
pub(super) fn certificate(value: &[u8]) -> Option<Vec<u8>> {
    if let Some(rest) = value.strip_prefix(b":") {
        return base64(rest.strip_suffix(b":")?);
    }
    let plain = unescape(value)?;
    let plain = plain.trim_ascii();
    if plain.starts_with(b"-----") {
        return base64(armoured(plain)?);
    }
    base64(plain.split(|octet| *octet == b',').next()?)
}

/// Whether a proxy had no certificate to pass on: nothing, or what Apache
/// writes for a variable that is not set.
pub(super) fn says_nothing(value: &[u8]) -> bool {
    value.is_empty() || value == b"(null)"
}

/// Decodes standard base64, with or without padding, white space anywhere.
pub(super) fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let text: Cow<'_, [u8]> = if text.iter().any(u8::is_ascii_whitespace) {
        text.iter()
            .copied()
            .filter(|octet| !octet.is_ascii_whitespace())
            .collect()
    } else {
        text.into()
    };
    BASE64.decode(text).ok()
}

/// What stands between the marks of the first certificate. Encoders of forms
/// write the space inside a mark as `+`.
fn armoured(pem: &[u8]) -> Option<&[u8]> {
    let rest = BEGIN.iter().find_map(|mark| pem.strip_prefix(*mark))?;
    let end = rest.windows(END.len()).position(|window| window == END)?;
    rest.get(..end)
}

fn unescape(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !value.contains(&b'%') {
        return Some(Cow::Borrowed(value));
    }
    let mut plain = Vec::with_capacity(value.len());
    let mut rest = value.iter();
    while let Some(octet) = rest.next() {
        if *octet == b'%' {
            plain.push(hex_digit(rest.next()?)? << 4 | hex_digit(rest.next()?)?);
        } else {
            plain.push(*octet);
        }
    }
    Some(Cow::Owned(plain))
}

fn hex_digit(octet: &u8) -> Option<u8> {
    char::from(*octet)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

const BEGIN: [&[u8]; 2] = [
    b"-----BEGIN CERTIFICATE-----",
    b"-----BEGIN+CERTIFICATE-----",
];
const END: &[u8] = b"-----END";

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_value_is_no_certificate() {
        for value in [
            ":AAAA",
            ":A*AA:",
            "%4",
            "%zz",
            "-----BEGIN CERTIFICATE-----",
            "-----BEGIN PRIVATE KEY-----AAAA-----END",
            "AAAA=AAAA",
            "A",
            "-----",
        ] {
            assert_eq!(certificate(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn every_form_gives_the_first_certificate() {
        for value in [
            ":+/+/:",
            "+/+/",
            "%2B/%2B%2F",
            "+/+/,AAAA",
            "%2B/%2B%2F%2CAAAA",
            "-----BEGIN CERTIFICATE----- +/ +/ -----END CERTIFICATE-----",
            "-----BEGIN%20CERTIFICATE-----%0A%2B/%2B/%0A-----END%20CERTIFICATE-----%0A-----BEGIN%20CERTIFICATE-----%0AAAAA%0A-----END%20CERTIFICATE-----",
            "-----BEGIN+CERTIFICATE-----%0A%2B/%2B/%0A-----END+CERTIFICATE-----%0A",
        ] {
            assert_eq!(
                certificate(value.as_bytes()),
                Some(vec![0xfb, 0xff, 0xbf]),
                "{value}"
            );
        }
    }
}
