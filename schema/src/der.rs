//! Reads and writes ASN.1 in its BER and DER encodings (X.690).
//!
//! One reader serves everything that devices encode: `Mdm-Signature`, SCEP
//! messages, certificates. It borrows from its input, allocates only to join a
//! constructed OCTET STRING, and is bounded: depth, length and tag form are
//! checked before anything is followed, so hostile input costs at most a pass
//! over it per level of nesting. Called by `cms` and `x509`; knows no schema
//! of theirs.

mod writer;

use std::borrow::Cow;
use std::fmt;

use thiserror::Error;

pub use self::writer::Writer;
use self::writer::encode_len;

/// Reads one level of a BER or DER encoding, element by element.
///
/// Going a level down ([`Element::children`]) hands the remaining depth on, so
/// no caller can recurse past [`MAX_DEPTH`].
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    rules: Rules,
    depth: u8,
}

/// One element: tag, content and the whole encoding it came in.
#[derive(Debug, Clone, Copy)]
pub struct Element<'a> {
    tag: Tag,
    content: &'a [u8],
    raw: &'a [u8],
    rules: Rules,
    depth: u8,
}

/// The identifier octet of an element: class, constructed bit and a number
/// below 31.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag(pub u8);

/// An object identifier as its encoded content octets, without tag and length.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Oid<'a>(pub &'a [u8]);

/// What is wrong with an encoding; the sender is at fault in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DerError {
    /// An element claims more octets than there are.
    #[error("encoding ends before its element does")]
    Truncated,
    /// Octets follow where the encoding should have ended.
    #[error("octets after the end of the encoding")]
    Trailing,
    /// The element found is not the one the structure calls for.
    #[error("expected tag {expected:#04x}, found {found:#04x}")]
    Unexpected {
        /// The identifier octet called for.
        expected: u8,
        /// The identifier octet found.
        found: u8,
    },
    /// A tag number of 31 or more, or an end-of-contents mark out of place.
    #[error("tag {0:#04x} is not supported")]
    BadTag(u8),
    /// A length that its encoding rules forbid, or of more than four octets.
    #[error("length is not well formed")]
    BadLength,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// The content does not fit its type.
    #[error("content is not a well formed {0}")]
    BadContent(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    Ber,
    Der,
}

impl<'a> Reader<'a> {
    /// Reads `input` by the tolerant rules: indefinite lengths, lengths longer
    /// than needed and constructed OCTET STRINGs pass.
    #[must_use]
    pub fn ber(input: &'a [u8]) -> Self {
        Self {
            rest: input,
            rules: Rules::Ber,
            depth: MAX_DEPTH,
        }
    }

    /// Reads `input` by the strict rules: every length definite and minimal.
    #[must_use]
    pub fn der(input: &'a [u8]) -> Self {
        Self {
            rest: input,
            rules: Rules::Der,
            depth: MAX_DEPTH,
        }
    }

    /// Whether this level has no further element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Ends this level.
    ///
    /// # Errors
    /// [`DerError::Trailing`] if an element is left.
    pub fn finish(self) -> Result<(), DerError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DerError::Trailing)
        }
    }

    /// The tag of the next element, without taking it.
    #[must_use]
    pub fn peek(&self) -> Option<Tag> {
        self.rest.first().copied().map(Tag)
    }

    /// Takes the next element, whatever it is.
    ///
    /// # Errors
    /// [`DerError`] if there is none or its tag or length is not well formed.
    pub fn element(&mut self) -> Result<Element<'a>, DerError> {
        let header = Header::parse(self.rest, self.rules)?;
        if header.tag == Tag::END_OF_CONTENTS {
            return Err(DerError::BadTag(header.tag.0));
        }
        let body = self.rest.get(header.len..).ok_or(DerError::Truncated)?;
        let (content, total) = match header.content {
            Some(len) => (
                body.get(..len).ok_or(DerError::Truncated)?,
                header.len + len,
            ),
            None => {
                let len = indefinite_len(body, self.depth)?;
                let content = body.get(..len).ok_or(DerError::Truncated)?;
                (content, header.len + len + END_OF_CONTENTS_LEN)
            }
        };
        let (raw, rest) = self
            .rest
            .split_at_checked(total)
            .ok_or(DerError::Truncated)?;
        self.rest = rest;
        Ok(Element {
            tag: header.tag,
            content,
            raw,
            rules: self.rules,
            depth: self.depth,
        })
    }

    /// Takes the next element, which must carry `tag`.
    ///
    /// # Errors
    /// [`DerError::Unexpected`] for another one.
    pub fn expect(&mut self, tag: Tag) -> Result<Element<'a>, DerError> {
        let found = self.peek().ok_or(DerError::Truncated)?;
        if found != tag {
            return Err(DerError::Unexpected {
                expected: tag.0,
                found: found.0,
            });
        }
        self.element()
    }

    /// Takes the next element only if it carries `tag`.
    ///
    /// # Errors
    /// [`DerError`] if the element is not well formed.
    pub fn optional(&mut self, tag: Tag) -> Result<Option<Element<'a>>, DerError> {
        if self.peek() == Some(tag) {
            self.element().map(Some)
        } else {
            Ok(None)
        }
    }

    /// Takes a SEQUENCE and goes into it.
    ///
    /// # Errors
    /// [`DerError`] if the next element is not one.
    pub fn sequence(&mut self) -> Result<Reader<'a>, DerError> {
        self.expect(Tag::SEQUENCE)?.children()
    }

    /// Takes a SET and goes into it.
    ///
    /// # Errors
    /// [`DerError`] if the next element is not one.
    pub fn set(&mut self) -> Result<Reader<'a>, DerError> {
        self.expect(Tag::SET)?.children()
    }

    /// Takes an OBJECT IDENTIFIER.
    ///
    /// # Errors
    /// [`DerError`] if the next element is not one.
    pub fn oid(&mut self) -> Result<Oid<'a>, DerError> {
        let content = self.expect(Tag::OID)?.content;
        // Every arc ends with an octet whose top bit is clear.
        match content.last() {
            Some(last) if last & 0x80 == 0 => Ok(Oid(content)),
            _ => Err(DerError::BadContent("OBJECT IDENTIFIER")),
        }
    }

    /// Takes an INTEGER and returns its two's complement content octets.
    ///
    /// # Errors
    /// [`DerError`] if the next element is not one or is empty.
    pub fn integer(&mut self) -> Result<&'a [u8], DerError> {
        let content = self.expect(Tag::INTEGER)?.content;
        if content.is_empty() {
            Err(DerError::BadContent("INTEGER"))
        } else {
            Ok(content)
        }
    }

    /// Takes an INTEGER between 0 and 2^32 - 1.
    ///
    /// # Errors
    /// [`DerError`] if the next element is not one or lies outside.
    pub fn small_integer(&mut self) -> Result<u32, DerError> {
        let bad = DerError::BadContent("INTEGER");
        let content = self.integer()?;
        if content.first().is_some_and(|first| first & 0x80 != 0) || content.len() > 5 {
            return Err(bad);
        }
        let value = content
            .iter()
            .fold(0u64, |sum, octet| sum << 8 | u64::from(*octet));
        u32::try_from(value).map_err(|_| bad)
    }

    /// Takes a BOOLEAN.
    ///
    /// # Errors
    /// [`DerError`] if the next element is not one.
    pub fn boolean(&mut self) -> Result<bool, DerError> {
        match self.expect(Tag::BOOLEAN)?.content {
            [octet] => Ok(*octet != 0),
            _ => Err(DerError::BadContent("BOOLEAN")),
        }
    }

    /// Takes an OCTET STRING, joined if it is constructed.
    ///
    /// # Errors
    /// [`DerError`] if the next element is not one.
    pub fn octet_string(&mut self) -> Result<Cow<'a, [u8]>, DerError> {
        let element = self.element()?;
        match element.tag.primitive() {
            Tag::OCTET_STRING => element.octets(),
            _ => Err(DerError::Unexpected {
                expected: Tag::OCTET_STRING.0,
                found: element.tag.0,
            }),
        }
    }

    /// Takes a primitive BIT STRING of whole octets.
    ///
    /// # Errors
    /// [`DerError`] if the next element is not one or has unused bits.
    pub fn bit_string(&mut self) -> Result<&'a [u8], DerError> {
        match self.expect(Tag::BIT_STRING)?.content {
            [0, octets @ ..] => Ok(octets),
            _ => Err(DerError::BadContent("BIT STRING")),
        }
    }
}

impl<'a> Element<'a> {
    /// The identifier octet.
    #[must_use]
    pub fn tag(&self) -> Tag {
        self.tag
    }

    /// The content octets, without an end-of-contents mark.
    #[must_use]
    pub fn content(&self) -> &'a [u8] {
        self.content
    }

    /// The whole encoding: tag, length, content and end-of-contents mark.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Goes into a constructed element.
    ///
    /// # Errors
    /// [`DerError::TooDeep`] at the depth limit, [`DerError::BadTag`] for a
    /// primitive element.
    pub fn children(&self) -> Result<Reader<'a>, DerError> {
        if !self.tag.is_constructed() {
            return Err(DerError::BadTag(self.tag.0));
        }
        let depth = self.depth.checked_sub(1).ok_or(DerError::TooDeep)?;
        Ok(Reader {
            rest: self.content,
            rules: self.rules,
            depth,
        })
    }

    /// The octets of a string, whatever its tag: the content of a primitive
    /// one, the joined segments of a constructed one (X.690, 8.7.3).
    ///
    /// # Errors
    /// [`DerError`] if a segment is not an OCTET STRING, or under the strict
    /// rules, which know no constructed strings.
    pub fn octets(&self) -> Result<Cow<'a, [u8]>, DerError> {
        if !self.tag.is_constructed() {
            return Ok(Cow::Borrowed(self.content));
        }
        if self.rules == Rules::Der {
            return Err(DerError::BadTag(self.tag.0));
        }
        let mut joined = Vec::with_capacity(self.content.len());
        let mut open = vec![self.children()?];
        while let Some(level) = open.last_mut() {
            if level.is_empty() {
                open.pop();
                continue;
            }
            let segment = level.element()?;
            match segment.tag {
                Tag::OCTET_STRING => joined.extend_from_slice(segment.content),
                tag if tag.primitive() == Tag::OCTET_STRING => open.push(segment.children()?),
                tag => {
                    return Err(DerError::Unexpected {
                        expected: Tag::OCTET_STRING.0,
                        found: tag.0,
                    });
                }
            }
        }
        Ok(Cow::Owned(joined))
    }

    /// Writes this element again by the DER rules for lengths and strings,
    /// under `tag` in place of its own. Elements of a SET keep the order they
    /// came in: a signature covers the order its signer wrote.
    ///
    /// # Errors
    /// [`DerError`] if anything inside is not well formed.
    pub fn to_der(&self, tag: Tag) -> Result<Vec<u8>, DerError> {
        let mut writer = Writer::new();
        self.write_der(tag, &mut writer)?;
        Ok(writer.finish())
    }

    fn write_der(&self, tag: Tag, writer: &mut Writer) -> Result<(), DerError> {
        if self.tag.primitive() == Tag::OCTET_STRING {
            writer.primitive(tag.primitive(), &self.octets()?);
            return Ok(());
        }
        if !self.tag.is_constructed() {
            writer.primitive(tag, self.content);
            return Ok(());
        }
        // Bounded: each `children` takes one off the depth.
        let mut children = self.children()?;
        writer.constructed(tag, |writer| {
            while !children.is_empty() {
                let child = children.element()?;
                child.write_der(child.tag, writer)?;
            }
            Ok(())
        })
    }
}

impl Tag {
    /// BOOLEAN.
    pub const BOOLEAN: Tag = Tag(0x01);
    /// INTEGER.
    pub const INTEGER: Tag = Tag(0x02);
    /// BIT STRING, primitive.
    pub const BIT_STRING: Tag = Tag(0x03);
    /// OCTET STRING, primitive.
    pub const OCTET_STRING: Tag = Tag(0x04);
    /// NULL.
    pub const NULL: Tag = Tag(0x05);
    /// OBJECT IDENTIFIER.
    pub const OID: Tag = Tag(0x06);
    /// UTF8String, primitive.
    pub const UTF8_STRING: Tag = Tag(0x0c);
    /// PrintableString, primitive.
    pub const PRINTABLE_STRING: Tag = Tag(0x13);
    /// TeletexString, also called T61String.
    pub const T61_STRING: Tag = Tag(0x14);
    /// IA5String.
    pub const IA5_STRING: Tag = Tag(0x16);
    /// UTCTime.
    pub const UTC_TIME: Tag = Tag(0x17);
    /// GeneralizedTime.
    pub const GENERALIZED_TIME: Tag = Tag(0x18);
    /// SEQUENCE and SEQUENCE OF.
    pub const SEQUENCE: Tag = Tag(0x30);
    /// SET and SET OF.
    pub const SET: Tag = Tag(0x31);

    const END_OF_CONTENTS: Tag = Tag(0x00);

    /// The constructed context-specific tag `[number]`; `number` below 31.
    #[must_use]
    pub const fn context(number: u8) -> Tag {
        Tag(0xa0 | (number & 0x1f))
    }

    /// The primitive context-specific tag `[number]`; `number` below 31.
    #[must_use]
    pub const fn context_primitive(number: u8) -> Tag {
        Tag(0x80 | (number & 0x1f))
    }

    /// Whether the element holds elements rather than octets.
    #[must_use]
    pub const fn is_constructed(self) -> bool {
        self.0 & CONSTRUCTED != 0
    }

    /// The same tag without the constructed bit.
    #[must_use]
    pub const fn primitive(self) -> Tag {
        Tag(self.0 & !CONSTRUCTED)
    }
}

impl fmt::Display for Oid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut arc = 0u64;
        let mut first = true;
        for octet in self.0 {
            arc = arc << 7 | u64::from(octet & 0x7f);
            if octet & 0x80 != 0 {
                continue;
            }
            if first {
                let root = (arc / 40).min(2);
                write!(f, "{root}.{}", arc - root * 40)?;
                first = false;
            } else {
                write!(f, ".{arc}")?;
            }
            arc = 0;
        }
        Ok(())
    }
}

impl fmt::Debug for Oid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Oid({self})")
    }
}

/// Tag and length of an element; `content` is `None` for an indefinite length.
struct Header {
    tag: Tag,
    len: usize,
    content: Option<usize>,
}

impl Header {
    fn parse(input: &[u8], rules: Rules) -> Result<Self, DerError> {
        let [identifier, first, rest @ ..] = input else {
            return Err(DerError::Truncated);
        };
        let tag = Tag(*identifier);
        if tag.0 & HIGH_TAG_NUMBER == HIGH_TAG_NUMBER {
            return Err(DerError::BadTag(tag.0));
        }
        match *first {
            INDEFINITE if rules == Rules::Ber && tag.is_constructed() => Ok(Self {
                tag,
                len: 2,
                content: None,
            }),
            INDEFINITE => Err(DerError::BadLength),
            short if short < INDEFINITE => Ok(Self {
                tag,
                len: 2,
                content: Some(short.into()),
            }),
            long => {
                let count = usize::from(long & !INDEFINITE);
                if count > 4 {
                    return Err(DerError::BadLength);
                }
                let octets = rest.get(..count).ok_or(DerError::Truncated)?;
                let content = octets
                    .iter()
                    .fold(0usize, |len, o| len << 8 | usize::from(*o));
                if rules == Rules::Der && encode_len(content).1 != count + 1 {
                    return Err(DerError::BadLength);
                }
                Ok(Self {
                    tag,
                    len: 2 + count,
                    content: Some(content),
                })
            }
        }
    }
}

/// How many octets of `body` come before the end-of-contents mark that closes
/// it. Steps over definite elements unread and into indefinite ones, with a
/// counter in place of recursion.
fn indefinite_len(body: &[u8], depth: u8) -> Result<usize, DerError> {
    let mut at = 0usize;
    let mut open = 1u8;
    loop {
        let rest = body.get(at..).ok_or(DerError::Truncated)?;
        let header = Header::parse(rest, Rules::Ber)?;
        if header.tag == Tag::END_OF_CONTENTS {
            if header.content != Some(0) || header.len != END_OF_CONTENTS_LEN {
                return Err(DerError::BadTag(header.tag.0));
            }
            open -= 1;
            if open == 0 {
                return Ok(at);
            }
        } else if header.content.is_none() {
            if open >= depth {
                return Err(DerError::TooDeep);
            }
            open += 1;
        }
        let step = header.content.unwrap_or(0).checked_add(header.len);
        at = step
            .and_then(|step| at.checked_add(step))
            .ok_or(DerError::Truncated)?;
    }
}

/// How deep elements may nest.
pub const MAX_DEPTH: u8 = 32;

const CONSTRUCTED: u8 = 0x20;
const HIGH_TAG_NUMBER: u8 = 0x1f;
const INDEFINITE: u8 = 0x80;
const END_OF_CONTENTS_LEN: usize = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// Walks everything there is, as a hostile caller would.
    fn walk(mut reader: Reader<'_>) -> Result<usize, DerError> {
        let mut count = 0;
        while !reader.is_empty() {
            let element = reader.element()?;
            count += 1;
            let _ = element.octets();
            let _ = element.to_der(element.tag());
            if element.tag().is_constructed() {
                count += walk(element.children()?)?;
            }
        }
        Ok(count)
    }

    #[test]
    fn every_form_of_a_length_reads_the_same_under_ber() {
        for (encoding, strict) in [
            ("30 03 020105", true),
            ("30 81 03 020105", false),
            ("30 84 00000003 020105", false),
            ("30 80 020105 0000", false),
        ] {
            let bytes = hex(encoding);
            let mut reader = Reader::ber(&bytes);
            let mut inside = reader.sequence().unwrap();
            assert_eq!(inside.small_integer(), Ok(5), "{encoding}");
            inside.finish().unwrap();
            reader.finish().unwrap();
            assert_eq!(Reader::der(&bytes).sequence().is_ok(), strict, "{encoding}");
        }
    }

    #[test]
    fn a_malformed_encoding_is_refused_with_its_reason() {
        for (encoding, error) in [
            ("", DerError::Truncated),
            ("30", DerError::Truncated),
            ("30 05 020105", DerError::Truncated),
            ("30 80 020105", DerError::Truncated),
            ("30 80 020105 00", DerError::Truncated),
            ("30 80 0001", DerError::BadTag(0)),
            ("00 00", DerError::BadTag(0)),
            ("04 80 0000", DerError::BadLength),
            ("30 85 0000000003 020105", DerError::BadLength),
            ("30 ff", DerError::BadLength),
            ("30 84 ffffffff", DerError::Truncated),
            ("30 82 01", DerError::Truncated),
            ("3f 81 01 00", DerError::BadTag(0x3f)),
        ] {
            let bytes = hex(encoding);
            assert_eq!(
                Reader::ber(&bytes).element().map(|_| ()),
                Err(error),
                "{encoding}"
            );
        }
    }

    #[test]
    fn nesting_stops_at_the_depth_limit() {
        let deepest = usize::from(MAX_DEPTH);
        for (levels, passes) in [(deepest, true), (deepest + 1, false), (100_000, false)] {
            let mut indefinite = [0x30, 0x80].repeat(levels);
            indefinite.extend([0, 0].repeat(levels));
            assert_eq!(
                walk(Reader::ber(&indefinite)).is_ok(),
                passes,
                "{levels} indefinite"
            );
        }
        let mut definite = Vec::new();
        for _ in 0..200 {
            let mut writer = Writer::new();
            writer.sequence(|inside| inside.raw(&definite));
            definite = writer.finish();
        }
        assert_eq!(walk(Reader::ber(&definite)), Err(DerError::TooDeep));
    }

    #[test]
    fn constructed_octet_strings_are_joined_only_under_ber() {
        let bytes = hex("24 80 0402 6162 24 80 0401 63 0000 2403 0401 64 0000");
        assert_eq!(
            Reader::ber(&bytes).octet_string().unwrap().as_ref(),
            b"abcd"
        );
        let definite = hex("24 04 0402 6162");
        assert_eq!(
            Reader::ber(&definite).octet_string().unwrap().as_ref(),
            b"ab"
        );
        assert!(Reader::der(&definite).octet_string().is_err());
        assert!(Reader::ber(&hex("24 03 020105")).octet_string().is_err());
    }

    #[test]
    fn to_der_folds_lengths_and_strings_and_keeps_the_order() {
        let bytes = hex("a0 80 30 80 2480 0401 61 0401 62 0000 0000 02 8101 05 0000");
        let element = Reader::ber(&bytes).element().unwrap();
        let folded = element.to_der(Tag::SET).unwrap();
        assert_eq!(folded, hex("31 09 3004 0402 6162 020105"));
        walk(Reader::der(&folded)).unwrap();
    }

    #[test]
    fn what_the_writer_writes_the_strict_reader_reads() {
        let mut writer = Writer::new();
        writer.sequence(|w| {
            w.small_integer(0);
            w.small_integer(128);
            w.integer(&[0, 0, 1, 2]);
            w.oid(Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d]));
            w.octet_string(&[7; 300]);
            w.bit_string(b"bits");
            w.context(0, |w| w.null());
            w.context_primitive(1, b"x");
            w.printable_string("19");
            w.utf8_string("ü");
            w.boolean(true);
            w.set_of(vec![vec![2, 1, 9], vec![2, 1, 3]]);
        });
        let bytes = writer.finish();
        let mut reader = Reader::der(&bytes);
        let mut inside = reader.sequence().unwrap();
        assert_eq!(inside.small_integer(), Ok(0));
        assert_eq!(inside.integer(), Ok(&[0u8, 128][..]));
        assert_eq!(inside.small_integer(), Ok(0x102));
        assert_eq!(inside.oid().unwrap().to_string(), "1.2.840.113549");
        assert_eq!(inside.octet_string().unwrap().len(), 300);
        assert_eq!(inside.bit_string(), Ok(&b"bits"[..]));
        assert_eq!(inside.expect(Tag::context(0)).unwrap().content(), [5, 0]);
        assert_eq!(
            inside.expect(Tag::context_primitive(1)).unwrap().content(),
            b"x"
        );
        assert_eq!(
            inside.expect(Tag::PRINTABLE_STRING).unwrap().content(),
            b"19"
        );
        assert_eq!(
            inside.expect(Tag::UTF8_STRING).unwrap().content(),
            "ü".as_bytes()
        );
        assert_eq!(inside.boolean(), Ok(true));
        assert_eq!(
            inside.expect(Tag::SET).unwrap().content(),
            [2, 1, 3, 2, 1, 9]
        );
        inside.finish().unwrap();
        reader.finish().unwrap();
    }

    #[test]
    fn lengths_are_written_minimal() {
        for (len, head) in [
            (0, "0400"),
            (127, "047f"),
            (128, "048180"),
            (256, "04820100"),
            (70_000, "0483011170"),
        ] {
            let mut writer = Writer::new();
            writer.octet_string(&vec![0; len]);
            assert!(writer.finish().starts_with(&hex(head)), "{len}");
        }
    }

    proptest! {
        #[test]
        fn the_reader_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = walk(Reader::ber(&bytes));
            let _ = walk(Reader::der(&bytes));
        }

        #[test]
        fn the_reader_never_panics_on_likely_octets(
            bytes in proptest::collection::vec(
                proptest::sample::select(vec![0x30u8, 0x80, 0, 4, 0x24, 2, 1, 0x81, 0x82, 0x84, 0xa0, 0x31]),
                0..200,
            )
        ) {
            let _ = walk(Reader::ber(&bytes));
        }

        #[test]
        fn folding_is_idempotent(bytes in proptest::collection::vec(
            proptest::sample::select(vec![0x30u8, 0x80, 0, 4, 0x24, 2, 1, 3]), 0..60,
        )) {
            if let Ok(element) = Reader::ber(&bytes).element()
                && let Ok(folded) = element.to_der(element.tag())
            {
                let again = Reader::ber(&folded).element().unwrap();
                prop_assert_eq!(again.to_der(again.tag()).unwrap(), folded);
            }
        }
    }
}
