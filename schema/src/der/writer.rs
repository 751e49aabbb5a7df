//! Writes DER: what we sign, and what SCEP answers with.
//!
//! Appends to one buffer; cannot fail, and knows no more of a structure than
//! its caller nests.

use super::{INDEFINITE, Oid, Tag};

/// Writes DER. Lengths are filled in when a constructed element closes.
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// Starts an empty encoding.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The encoding written so far.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    /// Writes a primitive element.
    pub fn primitive(&mut self, tag: Tag, content: &[u8]) {
        self.out.push(tag.0);
        let (octets, count) = encode_len(content.len());
        self.out.extend(octets.iter().skip(LEN_OCTETS - count));
        self.out.extend_from_slice(content);
    }

    /// Writes a constructed element with the content that `inside` writes, and
    /// passes on what `inside` returns.
    pub fn constructed<T>(&mut self, tag: Tag, inside: impl FnOnce(&mut Writer) -> T) -> T {
        self.out.push(tag.0);
        let start = self.out.len();
        let returned = inside(self);
        let (octets, count) = encode_len(self.out.len() - start);
        self.out
            .splice(start..start, octets.into_iter().skip(LEN_OCTETS - count));
        returned
    }

    /// Writes a SEQUENCE.
    pub fn sequence<T>(&mut self, inside: impl FnOnce(&mut Writer) -> T) -> T {
        self.constructed(Tag::SEQUENCE, inside)
    }

    /// Writes a SET whose elements `inside` writes in their final order; a SET
    /// OF with more than one element is [`Writer::set_of`].
    pub fn set<T>(&mut self, inside: impl FnOnce(&mut Writer) -> T) -> T {
        self.constructed(Tag::SET, inside)
    }

    /// Writes a SET OF: `elements` are whole encodings and are put in DER's
    /// order (X.690, 11.6).
    pub fn set_of(&mut self, mut elements: Vec<Vec<u8>>) {
        elements.sort_unstable();
        self.set(|set| elements.iter().for_each(|element| set.raw(element)));
    }

    /// Writes the constructed element `[number]`: an explicit tag, or an
    /// implicit one over a SEQUENCE or SET.
    pub fn context<T>(&mut self, number: u8, inside: impl FnOnce(&mut Writer) -> T) -> T {
        self.constructed(Tag::context(number), inside)
    }

    /// Writes the primitive element `[number]`: an implicit tag over a string
    /// or number.
    pub fn context_primitive(&mut self, number: u8, content: &[u8]) {
        self.primitive(Tag::context_primitive(number), content);
    }

    /// Writes an INTEGER from an unsigned big-endian number of any length.
    pub fn integer(&mut self, magnitude: &[u8]) {
        let zeros = magnitude.iter().take_while(|octet| **octet == 0).count();
        let digits = magnitude.get(zeros..).unwrap_or_default();
        // A leading zero keeps a number with its top bit set, or zero itself,
        // from reading as negative or empty.
        if digits.first().is_none_or(|first| first & 0x80 != 0) {
            let mut content = Vec::with_capacity(digits.len() + 1);
            content.push(0);
            content.extend_from_slice(digits);
            self.primitive(Tag::INTEGER, &content);
        } else {
            self.primitive(Tag::INTEGER, digits);
        }
    }

    /// Writes an INTEGER from a number.
    pub fn small_integer(&mut self, number: u64) {
        self.integer(&number.to_be_bytes());
    }

    /// Writes a BOOLEAN.
    pub fn boolean(&mut self, value: bool) {
        self.primitive(Tag::BOOLEAN, &[if value { 0xff } else { 0 }]);
    }

    /// Writes an OBJECT IDENTIFIER.
    pub fn oid(&mut self, oid: Oid<'_>) {
        self.primitive(Tag::OID, oid.0);
    }

    /// Writes an OCTET STRING.
    pub fn octet_string(&mut self, octets: &[u8]) {
        self.primitive(Tag::OCTET_STRING, octets);
    }

    /// Writes a BIT STRING of whole octets.
    pub fn bit_string(&mut self, octets: &[u8]) {
        let mut content = Vec::with_capacity(octets.len() + 1);
        content.push(0);
        content.extend_from_slice(octets);
        self.primitive(Tag::BIT_STRING, &content);
    }

    /// Writes a PrintableString; the caller passes only letters, digits, space
    /// and `'()+,-./:=?`.
    pub fn printable_string(&mut self, text: &str) {
        self.primitive(Tag::PRINTABLE_STRING, text.as_bytes());
    }

    /// Writes a UTF8String.
    pub fn utf8_string(&mut self, text: &str) {
        self.primitive(Tag::UTF8_STRING, text.as_bytes());
    }

    /// Writes NULL.
    pub fn null(&mut self) {
        self.primitive(Tag::NULL, &[]);
    }

    /// Writes a whole encoding as it stands.
    pub fn raw(&mut self, encoding: &[u8]) {
        self.out.extend_from_slice(encoding);
    }
}

/// The minimal length octets, right-aligned, and how many of them count.
pub(super) fn encode_len(len: usize) -> ([u8; LEN_OCTETS], usize) {
    let mut octets = [0u8; LEN_OCTETS];
    let mut count = 0usize;
    let mut left = len;
    for octet in octets.iter_mut().rev() {
        *octet = (left & 0xff) as u8;
        left >>= 8;
        count += 1;
        if left == 0 {
            break;
        }
    }
    if len >= usize::from(INDEFINITE) {
        count += 1;
        if let Some(octet) = octets.iter_mut().rev().nth(count - 1) {
            *octet = INDEFINITE | (count - 1) as u8;
        }
    }
    (octets, count)
}

const LEN_OCTETS: usize = size_of::<usize>() + 1;
