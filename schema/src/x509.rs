//! Reads what we ask of an X.509 certificate (RFC 5280): names, serial, dates,
//! public key and the few extensions that decide what it may be used for.
//!
//! A view over borrowed DER, strict so that one certificate has one encoding
//! and one hash. Called by `cms` to find a signer and by the identity door to
//! judge a leaf; checks no signature and knows no authority.

use crate::der::{DerError, Element, Oid, Reader, Tag};

/// A certificate, every part as the bytes it came in.
#[derive(Debug, Clone, Copy)]
pub struct Certificate<'a> {
    /// The whole certificate.
    pub raw: &'a [u8],
    /// Serial number: content octets of the INTEGER.
    pub serial: &'a [u8],
    /// Issuer name, whole encoding.
    pub issuer: &'a [u8],
    /// Subject name, whole encoding; may be the empty SEQUENCE.
    pub subject: &'a [u8],
    /// First second of validity, Unix time.
    pub not_before: i64,
    /// Last second of validity, Unix time.
    pub not_after: i64,
    /// The subject's public key.
    pub key: SubjectPublicKey<'a>,
    /// What the issuer signed: the whole TBSCertificate.
    pub tbs: &'a [u8],
    /// The algorithm of the issuer's signature.
    pub signature_algorithm: Oid<'a>,
    /// The issuer's signature over `tbs`.
    pub signature: &'a [u8],
    extensions: &'a [u8],
}

/// A public key as certificates carry it (SubjectPublicKeyInfo).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubjectPublicKey<'a> {
    /// Kind of key: [`RSA_ENCRYPTION`], [`EC_PUBLIC_KEY`] or another.
    pub algorithm: Oid<'a>,
    /// The named curve of an EC key.
    pub curve: Option<Oid<'a>>,
    /// RSA: the DER of RSAPublicKey (RFC 8017). EC: the point (SEC 1).
    pub bytes: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Reads a certificate that fills `raw` to its end.
    ///
    /// # Errors
    /// [`DerError`] if it is not one, is not strict DER in the parts read here,
    /// or repeats an extension (RFC 5280, 4.2).
    pub fn parse(raw: &'a [u8]) -> Result<Self, DerError> {
        let mut reader = Reader::der(raw);
        let mut outer = reader.sequence()?;
        reader.finish()?;
        let tbs = outer.expect(Tag::SEQUENCE)?;
        let algorithm = outer.expect(Tag::SEQUENCE)?;
        let signature = outer.bit_string()?;
        outer.finish()?;

        let mut fields = tbs.children()?;
        fields.optional(Tag::context(0))?;
        let serial = fields.integer()?;
        // Only the inner of the two is signed (RFC 5280, 4.1.1.2).
        if fields.expect(Tag::SEQUENCE)?.raw() != algorithm.raw() {
            return Err(DerError::BadContent("signature algorithm"));
        }
        let issuer = fields.expect(Tag::SEQUENCE)?.raw();
        let mut validity = fields.sequence()?;
        let not_before = time(&validity.element()?)?;
        let not_after = time(&validity.element()?)?;
        let certificate = Self {
            raw,
            serial,
            issuer,
            subject: fields.expect(Tag::SEQUENCE)?.raw(),
            not_before,
            not_after,
            key: SubjectPublicKey::parse(fields.sequence()?)?,
            tbs: tbs.raw(),
            signature_algorithm: algorithm.children()?.oid()?,
            signature,
            extensions: extensions(fields)?,
        };
        certificate.check_extensions()?;
        Ok(certificate)
    }

    /// The value of an extension, absent if the certificate has none.
    ///
    /// # Errors
    /// [`DerError`] if an extension before it is not well formed.
    pub fn extension(&self, id: Oid<'_>) -> Result<Option<&'a [u8]>, DerError> {
        let mut found = None;
        self.each_extension(|name, value| {
            if name == id {
                found = Some(value);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Whether basicConstraints make the subject an authority (RFC 5280, 4.2.1.9).
    ///
    /// # Errors
    /// [`DerError`] if the extension is not well formed.
    pub fn is_authority(&self) -> Result<bool, DerError> {
        let Some(value) = self.extension(BASIC_CONSTRAINTS)? else {
            return Ok(false);
        };
        let mut constraints = Reader::der(value).sequence()?;
        if constraints.peek() == Some(Tag::BOOLEAN) {
            constraints.boolean()
        } else {
            Ok(false)
        }
    }

    /// Whether the key may sign certificates: keyUsage is absent or includes
    /// keyCertSign (RFC 5280, 4.2.1.3).
    ///
    /// # Errors
    /// [`DerError`] if the extension is not well formed.
    pub fn may_sign_certificates(&self) -> Result<bool, DerError> {
        let Some(value) = self.extension(KEY_USAGE)? else {
            return Ok(true);
        };
        match Reader::der(value).expect(Tag::BIT_STRING)?.content() {
            [_, bits, ..] => Ok(bits & KEY_CERT_SIGN != 0),
            _ => Ok(false),
        }
    }

    /// Whether the key may identify a TLS client: extKeyUsage is absent or
    /// includes clientAuth or anyExtendedKeyUsage (RFC 5280, 4.2.1.12).
    ///
    /// # Errors
    /// [`DerError`] if the extension is not well formed.
    pub fn may_be_client(&self) -> Result<bool, DerError> {
        let Some(value) = self.extension(EXTENDED_KEY_USAGE)? else {
            return Ok(true);
        };
        let mut purposes = Reader::der(value).sequence()?;
        while !purposes.is_empty() {
            if matches!(purposes.oid()?, CLIENT_AUTH | ANY_PURPOSE) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The subjectKeyIdentifier, absent if the certificate has none.
    #[must_use]
    pub fn subject_key_id(&self) -> Option<&'a [u8]> {
        let value = self.extension(SUBJECT_KEY_ID).ok()??;
        Some(Reader::der(value).expect(Tag::OCTET_STRING).ok()?.content())
    }

    /// The serial number in upper-case hex without leading zero octets, as
    /// `openssl x509 -serial` prints a positive one.
    #[must_use]
    pub fn serial_hex(&self) -> String {
        let zeros = self.serial.iter().take_while(|octet| **octet == 0).count();
        let digits = self.serial.get(zeros..).filter(|digits| !digits.is_empty());
        digits
            .unwrap_or(&[0])
            .iter()
            .map(|octet| format!("{octet:02X}"))
            .collect()
    }

    fn check_extensions(&self) -> Result<(), DerError> {
        let mut seen = Vec::new();
        self.each_extension(|name, _| {
            if seen.contains(&name) || seen.len() >= MAX_EXTENSIONS {
                return Err(DerError::BadContent("extension list"));
            }
            seen.push(name);
            Ok(())
        })
    }

    fn each_extension(
        &self,
        mut visit: impl FnMut(Oid<'a>, &'a [u8]) -> Result<(), DerError>,
    ) -> Result<(), DerError> {
        if self.extensions.is_empty() {
            return Ok(());
        }
        let mut list = Reader::der(self.extensions).sequence()?;
        while !list.is_empty() {
            let mut extension = list.sequence()?;
            let name = extension.oid()?;
            extension.optional(Tag::BOOLEAN)?;
            let value = extension.expect(Tag::OCTET_STRING)?.content();
            extension.finish()?;
            visit(name, value)?;
        }
        Ok(())
    }
}

impl<'a> SubjectPublicKey<'a> {
    pub(crate) fn parse(mut info: Reader<'a>) -> Result<Self, DerError> {
        let mut identifier = info.sequence()?;
        let algorithm = identifier.oid()?;
        let curve = if identifier.peek() == Some(Tag::OID) {
            Some(identifier.oid()?)
        } else {
            None
        };
        let bytes = info.bit_string()?;
        info.finish()?;
        Ok(Self {
            algorithm,
            curve,
            bytes,
        })
    }
}

/// The whole encoding of the extensions, after the two optional unique ids
/// that end a TBSCertificate; empty if there are none.
fn extensions<'a>(mut rest: Reader<'a>) -> Result<&'a [u8], DerError> {
    rest.optional(Tag::context_primitive(1))?;
    rest.optional(Tag::context_primitive(2))?;
    let Some(wrapper) = rest.optional(Tag::context(3))? else {
        rest.finish()?;
        return Ok(&[]);
    };
    rest.finish()?;
    let mut explicit = wrapper.children()?;
    let list = explicit.expect(Tag::SEQUENCE)?.raw();
    explicit.finish()?;
    Ok(list)
}

/// Unix seconds of a Time (RFC 5280, 4.1.2.5): UTCTime until 2049,
/// GeneralizedTime after, both to the second and in UTC.
fn time(element: &Element<'_>) -> Result<i64, DerError> {
    let bad = DerError::BadContent("Time");
    let text = element.content().strip_suffix(b"Z").ok_or(bad)?;
    let year_digits = match element.tag() {
        Tag::UTC_TIME => 2,
        Tag::GENERALIZED_TIME => 4,
        _ => return Err(bad),
    };
    let (year, rest) = text.split_at_checked(year_digits).ok_or(bad)?;
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0i64, |sum, digit| {
            digit
                .is_ascii_digit()
                .then(|| sum * 10 + i64::from(digit - b'0'))
                .ok_or(bad)
        })
    };
    let year = match (number(year)?, year_digits) {
        (year @ 50.., 2) => 1900 + year,
        (year, 2) => 2000 + year,
        (year, _) => year,
    };
    let mut fields = [0i64; 5];
    if rest.len() != 2 * fields.len() {
        return Err(bad);
    }
    for (field, digits) in fields.iter_mut().zip(rest.chunks(2)) {
        *field = number(digits)?;
    }
    let [month, day, hour, minute, second] = fields;
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day);
    if !in_range || hour > 23 || minute > 59 || second > 59 {
        return Err(bad);
    }
    Ok(days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days from 1970-01-01 in the Gregorian calendar; years start in March so
/// that the leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// rsaEncryption, 1.2.840.113549.1.1.1.
pub const RSA_ENCRYPTION: Oid<'static> =
    Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01]);
/// id-ecPublicKey, 1.2.840.10045.2.1.
pub const EC_PUBLIC_KEY: Oid<'static> = Oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]);
/// secp256r1 (P-256), 1.2.840.10045.3.1.7.
pub const SECP256R1: Oid<'static> = Oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
/// secp384r1 (P-384), 1.3.132.0.34.
pub const SECP384R1: Oid<'static> = Oid(&[0x2b, 0x81, 0x04, 0x00, 0x22]);
/// secp521r1 (P-521), 1.3.132.0.35.
pub const SECP521R1: Oid<'static> = Oid(&[0x2b, 0x81, 0x04, 0x00, 0x23]);

const SUBJECT_KEY_ID: Oid<'static> = Oid(&[0x55, 0x1d, 0x0e]);
const KEY_USAGE: Oid<'static> = Oid(&[0x55, 0x1d, 0x0f]);
const BASIC_CONSTRAINTS: Oid<'static> = Oid(&[0x55, 0x1d, 0x13]);
const EXTENDED_KEY_USAGE: Oid<'static> = Oid(&[0x55, 0x1d, 0x25]);
const ANY_PURPOSE: Oid<'static> = Oid(&[0x55, 0x1d, 0x25, 0x00]);
const CLIENT_AUTH: Oid<'static> = Oid(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02]);

/// Bit 5 of KeyUsage, in its first octet.
const KEY_CERT_SIGN: u8 = 0x04;
const MAX_EXTENSIONS: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::der::Writer;

    fn written(inside: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::new();
        inside(&mut writer);
        writer.finish()
    }

    fn certificate(extensions: &[(Oid<'_>, Vec<u8>)]) -> Vec<u8> {
        written(|w| {
            w.sequence(|w| {
                w.sequence(|w| {
                    w.context(0, |w| w.small_integer(2));
                    w.integer(&[0xab, 0xcd]);
                    w.sequence(|w| w.oid(RSA_ENCRYPTION));
                    w.sequence(|_| ());
                    w.sequence(|w| {
                        w.primitive(Tag::UTC_TIME, b"210528050923Z");
                        w.primitive(Tag::GENERALIZED_TIME, b"20500101000000Z");
                    });
                    w.sequence(|_| ());
                    w.sequence(|w| {
                        w.sequence(|w| {
                            w.oid(EC_PUBLIC_KEY);
                            w.oid(SECP256R1);
                        });
                        w.bit_string(&[4; 65]);
                    });
                    w.context(3, |w| {
                        w.sequence(|w| {
                            for (name, value) in extensions {
                                w.sequence(|w| {
                                    w.oid(*name);
                                    w.octet_string(value);
                                });
                            }
                        });
                    });
                });
                w.sequence(|w| w.oid(RSA_ENCRYPTION));
                w.bit_string(b"signature");
            });
        })
    }

    #[test]
    fn dates_serial_and_key_are_read() {
        let bytes = certificate(&[]);
        let certificate = Certificate::parse(&bytes).unwrap();
        assert_eq!(certificate.not_before, 1_622_178_563);
        assert_eq!(certificate.not_after, 2_524_608_000);
        assert_eq!(certificate.serial_hex(), "ABCD");
        assert_eq!(certificate.key.curve, Some(SECP256R1));
        assert_eq!(certificate.key.bytes, [4; 65]);
        assert!(!certificate.is_authority().unwrap());
        assert!(certificate.may_be_client().unwrap());
    }

    #[test]
    fn extensions_say_what_the_key_is_for() {
        let purposes = |purpose: Oid<'_>| written(|w| w.sequence(|w| w.oid(purpose)));
        let server = Oid(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01]);
        for (extensions, authority, signs, client) in [
            (
                vec![(
                    BASIC_CONSTRAINTS,
                    written(|w| w.sequence(|w| w.boolean(true))),
                )],
                true,
                true,
                true,
            ),
            (
                vec![(BASIC_CONSTRAINTS, written(|w| w.sequence(|_| ())))],
                false,
                true,
                true,
            ),
            (vec![(KEY_USAGE, vec![3, 2, 1, 0x06])], false, true, true),
            (vec![(KEY_USAGE, vec![3, 2, 5, 0xa0])], false, false, true),
            (
                vec![(EXTENDED_KEY_USAGE, purposes(CLIENT_AUTH))],
                false,
                true,
                true,
            ),
            (
                vec![(EXTENDED_KEY_USAGE, purposes(ANY_PURPOSE))],
                false,
                true,
                true,
            ),
            (
                vec![(EXTENDED_KEY_USAGE, purposes(server))],
                false,
                true,
                false,
            ),
        ] {
            let bytes = certificate(&extensions);
            let certificate = Certificate::parse(&bytes).unwrap();
            assert_eq!(certificate.is_authority(), Ok(authority), "{extensions:?}");
            assert_eq!(
                certificate.may_sign_certificates(),
                Ok(signs),
                "{extensions:?}"
            );
            assert_eq!(certificate.may_be_client(), Ok(client), "{extensions:?}");
        }
    }

    #[test]
    fn a_second_encoding_of_a_certificate_is_refused() {
        let bytes = certificate(&[]);
        let mut trailing = bytes.clone();
        trailing.push(0);
        assert!(Certificate::parse(&trailing).is_err());
        let content = Reader::der(&bytes).element().unwrap().content().to_vec();
        let indefinite = [&[0x30, 0x80][..], &content, &[0, 0]].concat();
        assert!(Certificate::parse(&indefinite).is_err());
        let repeated = (KEY_USAGE, vec![3, 2, 1, 0x06]);
        assert!(Certificate::parse(&certificate(&[repeated.clone(), repeated])).is_err());
    }

    #[test]
    fn times_out_of_form_are_refused() {
        for (tag, text) in [
            (Tag::UTC_TIME, "2105280509Z"),
            (Tag::UTC_TIME, "210528050923+0000"),
            (Tag::UTC_TIME, "211328050923Z"),
            (Tag::GENERALIZED_TIME, "20210528050960Z"),
            (Tag::GENERALIZED_TIME, "2021052805092xZ"),
            (Tag::UTF8_STRING, "210528050923Z"),
        ] {
            let bytes = written(|w| w.primitive(tag, text.as_bytes()));
            assert!(
                time(&Reader::der(&bytes).element().unwrap()).is_err(),
                "{text}"
            );
        }
        for (tag, text, unix) in [
            (Tag::UTC_TIME, "700101000000Z", 0),
            (Tag::UTC_TIME, "491231235959Z", 2_524_607_999),
            (Tag::UTC_TIME, "500101000000Z", -631_152_000),
            (Tag::GENERALIZED_TIME, "99991231235959Z", 253_402_300_799),
            (Tag::GENERALIZED_TIME, "20240229120000Z", 1_709_208_000),
        ] {
            let bytes = written(|w| w.primitive(tag, text.as_bytes()));
            assert_eq!(
                time(&Reader::der(&bytes).element().unwrap()),
                Ok(unix),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_damaged_certificate_never_panics(at in 0usize..200, octet in any::<u8>(), cut in 0usize..300) {
            let mut bytes = certificate(&[(KEY_USAGE, vec![3, 2, 1, 0x06])]);
            if let Some(place) = bytes.get_mut(at) { *place = octet; }
            bytes.truncate(cut.max(1));
            if let Ok(certificate) = Certificate::parse(&bytes) {
                let _ = certificate.is_authority();
                let _ = certificate.may_be_client();
                let _ = certificate.subject_key_id();
                let _ = certificate.serial_hex();
            }
        }
    }
}
