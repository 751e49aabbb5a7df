//! XML property lists in and out, bounded.
//!
//! One pass of [`Scan`] proves a body harmless before the plist reader sees it
//! (the reader overflows the stack on deep nesting, drops CDATA and unknown
//! entities silently, and sniffs binary formats), and on its way collects the
//! scalar values of the outermost dictionary: all the hot path ever needs.
//! The only file that names the plist reader.

use std::borrow::Cow;

use memchr::{memchr, memmem};
use plist::{Dictionary, Value};

/// Nesting allowed in a body.
pub const MAX_DEPTH: usize = 64;
/// Elements allowed in a body.
pub const MAX_ELEMENTS: usize = 100_000;

/// Keys allowed in the outermost dictionary; devices send some dozens.
const MAX_KEYS: usize = 512;

/// What one guarded pass over a body found: the scalars of the outermost dictionary.
#[derive(Debug)]
pub struct Scan<'a> {
    scalars: Vec<(Cow<'a, str>, Scalar<'a>)>,
    /// Places of `=` that stand behind complete base64.
    surplus: Vec<usize>,
}

/// A scalar value as it stands in the body.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar<'a> {
    /// A `string`, entities resolved.
    Text(Cow<'a, str>),
    /// `true` or `false`.
    Boolean(bool),
    /// Any other element, not read.
    Other,
}

impl<'a> Scan<'a> {
    /// Scans a body.
    ///
    /// # Errors
    /// [`Unreadable`] says what makes it no harmless XML plist with a dictionary outermost.
    pub fn new(body: &'a [u8]) -> Result<Self, Unreadable> {
        if body.starts_with(b"bplist") {
            return Err(Unreadable::Binary);
        }
        let text = std::str::from_utf8(body).map_err(|_| Unreadable::Encoding)?;
        Scanner::new(text).run()
    }

    /// The text under a key of the outermost dictionary.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Scalar::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value under a key of the outermost dictionary.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Scalar<'a>> {
        self.scalars.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }
}

/// Parses a body into its outermost dictionary, after the guard. Base64 with more
/// padding than it needs, as some devices send it, is taken.
///
/// # Errors
/// [`Unreadable`] for anything but a harmless XML plist with a dictionary outermost.
pub fn parse(body: &[u8]) -> Result<Dictionary, Unreadable> {
    let surplus = Scan::new(body)?.surplus;
    let repaired = if surplus.is_empty() {
        Cow::Borrowed(body)
    } else {
        let kept = body
            .iter()
            .enumerate()
            .filter(|(at, _)| surplus.binary_search(at).is_err());
        Cow::Owned(kept.map(|(_, byte)| *byte).collect())
    };
    Value::from_reader_xml(&*repaired)
        .map_err(|error| Unreadable::Plist(error.to_string()))?
        .into_dictionary()
        .ok_or(Unreadable::NoDictionary)
}

/// Writes a dictionary as an XML plist.
#[must_use]
pub fn write(dictionary: Dictionary) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    // Writing to memory fails only on values an XML plist cannot hold (UIDs), which no caller builds.
    if Value::Dictionary(dictionary)
        .to_writer_xml(&mut out)
        .is_err()
    {
        out.clear();
    }
    out
}

/// Why a body is not a plist we read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Devices send XML; a small binary plist can unfold without end.
    #[error("the body is a binary plist, XML is expected")]
    Binary,
    /// Not UTF-8.
    #[error("the body is not UTF-8")]
    Encoding,
    /// Elements nested too deep.
    #[error("the plist is nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// Too many elements.
    #[error("the plist has more than {MAX_ELEMENTS} elements, or {MAX_KEYS} keys outermost")]
    TooMany,
    /// A CDATA section.
    #[error("the plist holds a CDATA section")]
    Cdata,
    /// A DTD with a subset of its own.
    #[error("the plist has a DTD subset")]
    Dtd,
    /// An entity other than XML's five, or a malformed reference.
    #[error("the plist holds an entity that is not one of XML's own")]
    Entity,
    /// A key that stands twice in the outermost dictionary.
    #[error("the key {0} stands twice")]
    Doubled(String),
    /// Markup that does not fit together.
    #[error("the plist is malformed near byte {0}")]
    Malformed(usize),
    /// The outermost value is not a dictionary.
    #[error("the plist has no dictionary outermost")]
    NoDictionary,
    /// The plist reader's own refusal (a bad number, date or base64).
    #[error("the plist has an unreadable value: {0}")]
    Plist(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Plist,
    Dict,
    Array,
    Key,
    Text,
    Boolean(bool),
    Data,
    Leaf,
}

fn tag(name: &str) -> Option<Tag> {
    Some(match name {
        "plist" => Tag::Plist,
        "dict" => Tag::Dict,
        "array" => Tag::Array,
        "key" => Tag::Key,
        "string" => Tag::Text,
        "true" => Tag::Boolean(true),
        "false" => Tag::Boolean(false),
        "data" => Tag::Data,
        "date" | "integer" | "real" => Tag::Leaf,
        _ => return None,
    })
}

/// An open container, and for a dictionary whether a value is due.
struct Open {
    tag: Tag,
    value_due: bool,
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    open: Vec<Open>,
    elements: usize,
    rooted: bool,
    key: Cow<'a, str>,
    scalars: Vec<(Cow<'a, str>, Scalar<'a>)>,
    surplus: Vec<usize>,
    /// Length of a byte order mark in front of `text`.
    offset: usize,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        let marked = text;
        let text = marked.strip_prefix('\u{feff}').unwrap_or(marked);
        Self {
            text,
            offset: marked.len() - text.len(),
            surplus: Vec::new(),
            at: 0,
            open: Vec::with_capacity(8),
            elements: 0,
            rooted: false,
            key: Cow::Borrowed(""),
            scalars: Vec::with_capacity(8),
        }
    }

    fn run(mut self) -> Result<Scan<'a>, Unreadable> {
        while let Some(gap) = memchr(b'<', self.rest().as_bytes()) {
            self.only_space(gap)?;
            self.at += gap;
            let rest = self.rest();
            if rest.starts_with("<!--") {
                self.skip_past("-->")?;
            } else if rest.starts_with("<?") {
                self.skip_past("?>")?;
            } else if rest.starts_with("<![") {
                return Err(Unreadable::Cdata);
            } else if rest.starts_with("<!") {
                self.doctype()?;
            } else if rest.starts_with("</") {
                self.close()?;
            } else {
                self.element()?;
            }
        }
        self.only_space(self.rest().len())?;
        if !self.open.is_empty() {
            return Err(self.malformed());
        }
        if !self.rooted {
            return Err(Unreadable::NoDictionary);
        }
        Ok(Scan {
            scalars: self.scalars,
            surplus: self.surplus,
        })
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn malformed(&self) -> Unreadable {
        Unreadable::Malformed(self.at)
    }

    fn only_space(&self, length: usize) -> Result<(), Unreadable> {
        let gap = self.rest().get(..length).unwrap_or("");
        if gap.bytes().all(|b| b.is_ascii_whitespace()) {
            Ok(())
        } else {
            Err(self.malformed())
        }
    }

    fn skip_past(&mut self, end: &str) -> Result<(), Unreadable> {
        let length =
            memmem::find(self.rest().as_bytes(), end.as_bytes()).ok_or_else(|| self.malformed())?;
        let skipped = self.rest().get(..length).unwrap_or("");
        if end == "?>" && skipped.get(1..).unwrap_or("").contains('<') {
            return Err(self.malformed());
        }
        self.at += length + end.len();
        Ok(())
    }

    fn doctype(&mut self) -> Result<(), Unreadable> {
        let length = memchr(b'>', self.rest().as_bytes()).ok_or_else(|| self.malformed())?;
        let declaration = self.rest().get(..length).unwrap_or("");
        if declaration.contains('[') {
            return Err(Unreadable::Dtd);
        }
        if self.rooted || !self.open.is_empty() || !declaration.starts_with("<!DOCTYPE") {
            return Err(self.malformed());
        }
        self.at += length + 1;
        Ok(())
    }

    /// `</name>` of a container: leaves are closed where they are opened.
    fn close(&mut self) -> Result<(), Unreadable> {
        let length = memchr(b'>', self.rest().as_bytes()).ok_or_else(|| self.malformed())?;
        let name = self.rest().get(2..length).unwrap_or("").trim_ascii_end();
        match self.open.pop() {
            Some(open) if Some(open.tag) == tag(name) && !open.value_due => {
                self.at += length + 1;
                Ok(())
            }
            _ => Err(self.malformed()),
        }
    }

    fn element(&mut self) -> Result<(), Unreadable> {
        self.elements += 1;
        if self.elements > MAX_ELEMENTS {
            return Err(Unreadable::TooMany);
        }
        let length = memchr(b'>', self.rest().as_bytes()).ok_or_else(|| self.malformed())?;
        let inside = self.rest().get(1..length).unwrap_or("");
        if inside.contains('<') {
            return Err(self.malformed());
        }
        let (inside, empty) = match inside.strip_suffix('/') {
            Some(inside) => (inside, true),
            None => (inside, false),
        };
        let name = inside.split_ascii_whitespace().next().unwrap_or("");
        let tag = tag(name).filter(|_| inside.starts_with(name));
        let tag = tag.ok_or_else(|| self.malformed())?;
        self.place(tag)?;
        self.at += length + 1;
        match tag {
            Tag::Plist | Tag::Dict | Tag::Array if !empty => {
                if self.open.len() >= MAX_DEPTH {
                    return Err(Unreadable::TooDeep);
                }
                self.open.push(Open {
                    tag,
                    value_due: false,
                });
                Ok(())
            }
            Tag::Plist => Err(Unreadable::NoDictionary),
            Tag::Dict | Tag::Array => Ok(()),
            Tag::Boolean(value) => {
                self.content(name, empty)?;
                self.keep(Scalar::Boolean(value))
            }
            Tag::Key => {
                let key = self.content(name, empty)?;
                if self.outermost() {
                    self.key = key;
                }
                Ok(())
            }
            Tag::Text => {
                let text = self.content(name, empty)?;
                self.keep(Scalar::Text(text))
            }
            Tag::Data => {
                let from = self.at;
                let content = self.content(name, empty)?;
                self.note_surplus(from, &content);
                self.keep(Scalar::Other)
            }
            Tag::Leaf => {
                self.content(name, empty)?;
                self.keep(Scalar::Other)
            }
        }
    }

    /// Checks that an element may stand here, and turns the dictionary it stands in.
    fn place(&mut self, tag: Tag) -> Result<(), Unreadable> {
        let malformed = self.malformed();
        let depth = self.open.len();
        match self.open.last_mut() {
            None => {
                if tag != Tag::Plist || self.rooted {
                    return Err(malformed);
                }
                Ok(())
            }
            Some(open) => match open.tag {
                _ if tag == Tag::Plist => Err(malformed),
                Tag::Plist => {
                    if tag != Tag::Dict {
                        return Err(Unreadable::NoDictionary);
                    }
                    if self.rooted {
                        return Err(malformed);
                    }
                    self.rooted = true;
                    Ok(())
                }
                Tag::Dict => {
                    if (tag == Tag::Key) == open.value_due {
                        return Err(malformed);
                    }
                    open.value_due = tag == Tag::Key;
                    if depth == 2 && matches!(tag, Tag::Dict | Tag::Array) {
                        return self.keep_here(Scalar::Other);
                    }
                    Ok(())
                }
                Tag::Array if tag != Tag::Key => Ok(()),
                _ => Err(malformed),
            },
        }
    }

    /// Notes the padding behind base64 that is complete without it.
    fn note_surplus(&mut self, from: usize, content: &str) {
        let trimmed = content.trim_ascii_end();
        let bare = trimmed.trim_end_matches('=');
        if bare.len() == trimmed.len() || bare.len() > content.len() {
            return;
        }
        let digits = bare
            .bytes()
            .filter(|byte| !byte.is_ascii_whitespace())
            .count();
        if digits % 4 == 0 {
            let offset = self.offset + from;
            self.surplus
                .extend((bare.len()..trimmed.len()).map(|at| offset + at));
        }
    }

    fn outermost(&self) -> bool {
        self.open.len() == 2
    }

    /// Keeps a scalar when it stands in the outermost dictionary; containers were
    /// noted when they were placed.
    fn keep(&mut self, value: Scalar<'a>) -> Result<(), Unreadable> {
        if self.outermost() {
            self.keep_here(value)
        } else {
            Ok(())
        }
    }

    fn keep_here(&mut self, value: Scalar<'a>) -> Result<(), Unreadable> {
        if self.scalars.iter().any(|(key, _)| *key == self.key) {
            return Err(Unreadable::Doubled(self.key.chars().take(64).collect()));
        }
        if self.scalars.len() >= MAX_KEYS {
            return Err(Unreadable::TooMany);
        }
        self.scalars.push((self.key.clone(), value));
        Ok(())
    }

    /// The text of a leaf up to its closing tag, entities resolved.
    fn content(&mut self, name: &str, empty: bool) -> Result<Cow<'a, str>, Unreadable> {
        if empty {
            return Ok(Cow::Borrowed(""));
        }
        let length = memchr(b'<', self.rest().as_bytes()).ok_or_else(|| self.malformed())?;
        let text = self.rest().get(..length).unwrap_or("");
        let text = unescape(text)?;
        self.at += length;
        if self.rest().starts_with("<![") {
            return Err(Unreadable::Cdata);
        }
        let closing = self
            .rest()
            .strip_prefix("</")
            .and_then(|rest| rest.strip_prefix(name))
            .and_then(|rest| memchr(b'>', rest.as_bytes()).map(|end| (rest, end)))
            .filter(|(rest, end)| rest.get(..*end).is_some_and(|s| s.trim_ascii().is_empty()))
            .map(|(_, end)| 2 + name.len() + end + 1);
        self.at += closing.ok_or_else(|| self.malformed())?;
        Ok(text)
    }
}

fn unescape(text: &str) -> Result<Cow<'_, str>, Unreadable> {
    if memchr(b'&', text.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let (name, behind) = after.split_once(';').ok_or(Unreadable::Entity)?;
        out.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => character(name).ok_or(Unreadable::Entity)?,
        });
        rest = behind;
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

/// `#10` or `#x0A`, for the characters XML 1.0 allows.
fn character(reference: &str) -> Option<char> {
    let digits = reference.strip_prefix('#')?;
    let code = match digits.strip_prefix('x') {
        Some(hex) => u32::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    char::from_u32(code).filter(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plist(inside: &str) -> Vec<u8> {
        format!("<?xml version=\"1.0\"?><!DOCTYPE plist PUBLIC \"a\" \"b\"><plist version=\"1.0\">{inside}</plist>")
            .into_bytes()
    }

    #[test]
    fn scalars_of_the_outermost_dictionary_are_found_and_no_others() {
        let body = plist(
            "<dict><key>Status</key><string>A &amp; &#66;</string><key>In</key><dict><key>Status</key>\
             <string>no</string><key>x</key><array><string>y</string></array></dict>\
             <key>On</key><true/><key>N</key><integer>1</integer><key>E</key><dict/><key>L</key><array/></dict>",
        );
        let scan = Scan::new(&body).unwrap();
        assert_eq!(scan.text("Status"), Some("A & B"));
        assert_eq!(scan.get("On"), Some(&Scalar::Boolean(true)));
        for other in ["In", "N", "E", "L"] {
            assert_eq!(scan.get(other), Some(&Scalar::Other), "{other}");
        }
        assert_eq!(scan.get("x"), None);
    }

    #[test]
    fn harmful_bodies_are_refused_before_the_reader_sees_them() {
        let deep = format!(
            "<dict><key>a</key>{}{}</dict>",
            "<array>".repeat(5000),
            "</array>".repeat(5000)
        );
        let many = format!(
            "<dict><key>a</key><array>{}</array></dict>",
            "<true/>".repeat(100_001)
        );
        let cases: Vec<(Vec<u8>, Unreadable)> = vec![
            (b"bplist00\xd0".to_vec(), Unreadable::Binary),
            (b"\xff\xfe<".to_vec(), Unreadable::Encoding),
            (plist(&deep), Unreadable::TooDeep),
            (plist(&many), Unreadable::TooMany),
            (
                plist("<dict><key>a</key><string><![CDATA[x]]></string></dict>"),
                Unreadable::Cdata,
            ),
            (plist("<dict><![CDATA[x]]></dict>"), Unreadable::Cdata),
            (
                b"<!DOCTYPE plist [<!ENTITY a \"b\">]><plist><dict/></plist>".to_vec(),
                Unreadable::Dtd,
            ),
            (
                plist("<dict><key>a</key><string>&boom;</string></dict>"),
                Unreadable::Entity,
            ),
            (
                plist("<dict><key>a</key><true/><key>a</key><true/></dict>"),
                Unreadable::Doubled("a".into()),
            ),
            (
                plist("<dict><key>a</key><dict/><key>a</key><array/></dict>"),
                Unreadable::Doubled("a".into()),
            ),
            (plist("<array/>"), Unreadable::NoDictionary),
            (plist(""), Unreadable::NoDictionary),
            (Vec::new(), Unreadable::NoDictionary),
        ];
        for (body, expected) in cases {
            assert_eq!(Scan::new(&body).unwrap_err(), expected);
        }
    }

    #[test]
    fn markup_that_does_not_fit_is_refused() {
        for inside in [
            "<dict><key>a</key></dict>",
            "<dict><string>a</string></dict>",
            "<dict><key>a</key><key>b</key></dict>",
            "<dict><key>a</key><string>b</dict>",
            "<dict>",
            "</dict>",
            "<dict></array>",
            "<dict><key>a</key><bogus/></dict>",
            "<dict/><dict/>",
            "<dict/>text",
            "<dict><key>a</key><array><key>x</key></array></dict>",
        ] {
            assert!(
                matches!(Scan::new(&plist(inside)), Err(Unreadable::Malformed(_))),
                "{inside}"
            );
        }
    }

    #[test]
    fn surplus_padding_is_taken_and_missing_padding_is_not() {
        let data = |base64: &str| {
            let body = plist(&format!("<dict><key>d</key><data>{base64}</data></dict>"));
            parse(&body).map(|d| d.get("d").and_then(Value::as_data).unwrap().to_vec())
        };
        assert_eq!(data("\n\tAAAA=\n").unwrap(), [0, 0, 0]);
        assert_eq!(data("AAAA==").unwrap(), [0, 0, 0]);
        assert_eq!(data("AQI=").unwrap(), [1, 2]);
        assert_eq!(data("").unwrap(), [0_u8; 0]);
        assert!(data("Base64=").is_err());
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let mut inner = Dictionary::new();
        inner.insert("text".into(), Value::String("<&>\"'é\t".into()));
        let mut dictionary = Dictionary::new();
        dictionary.insert("data".into(), Value::Data(vec![0, 1, 255]));
        dictionary.insert("inner".into(), Value::Dictionary(inner));
        assert_eq!(parse(&write(dictionary.clone())).unwrap(), dictionary);
    }

    proptest! {
        #[test]
        fn no_body_makes_the_guard_or_the_reader_panic(body in "(<|>|/|dict|key|string|array|plist|true|!|--|&|;|#|x| |a|\\?|\\[|\\]){0,60}") {
            let _ = parse(body.as_bytes());
            let _ = parse(&plist(&body));
        }

        #[test]
        fn no_bytes_make_the_guard_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Scan::new(&body);
        }
    }
}
