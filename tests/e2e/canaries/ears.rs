//! Hears secrets in whatever was said, however they are written.

use std::collections::BTreeSet;

/// All forms of all secrets, by the two bytes they begin with.
pub(super) struct Ears {
    forms: Vec<(&'static str, Vec<u8>)>,
    begins: Vec<Vec<usize>>,
}

impl Ears {
    pub(super) fn of(secrets: &[(&'static str, Vec<u8>)]) -> Self {
        let forms = secrets.iter().flat_map(|(name, value)| {
            let forms = forms(value).into_iter();
            forms.map(|form| (*name, form))
        });
        let forms: Vec<_> = forms.collect();
        let mut begins = vec![Vec::new(); 1 << 16];
        for (at, (_, form)) in forms.iter().enumerate() {
            begins[pair(form)].push(at);
        }
        Self { forms, begins }
    }

    /// The names of the secrets that are in it.
    pub(super) fn heard(&self, said: &[u8]) -> BTreeSet<&'static str> {
        let mut heard = BTreeSet::new();
        for at in 0..said.len().saturating_sub(1) {
            for form in &self.begins[pair(&said[at..])] {
                let (name, form) = &self.forms[*form];
                if said[at..].starts_with(form) && stands_alone(said, at, form) {
                    heard.insert(*name);
                }
            }
        }
        heard
    }
}

/// Six digits of a PIN are in many a long number by chance.
fn stands_alone(said: &[u8], at: usize, form: &[u8]) -> bool {
    let neighbours = [at.checked_sub(1), at.checked_add(form.len())];
    let mut neighbours = neighbours.into_iter().flatten();
    !form.iter().all(u8::is_ascii_digit)
        || !neighbours.any(|at| said.get(at).is_some_and(u8::is_ascii_alphanumeric))
}

fn pair(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}

/// The ways a secret may be written down and still be read.
fn forms(value: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
    let listed = format!("{value:?}");
    let mut forms = vec![
        value.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        listed.trim_matches(['[', ']']).as_bytes().to_vec(),
    ];
    // Base64 of it wherever it begins, without what its neighbours have a share in.
    for before in 0..3 {
        let padded = [&vec![b'x'; before], value].concat();
        let encoded = openssl::base64::encode_block(&padded);
        let first = (before * 8).div_ceil(6);
        let last = padded.len() * 8 / 6;
        if last - first >= 8 {
            let inner = &encoded[first..last];
            forms.push(inner.as_bytes().to_vec());
            forms.push(inner.replace('+', "-").replace('/', "_").into_bytes());
        }
    }
    forms
}

#[test]
fn a_secret_is_heard_however_it_is_written() {
    let secret = b"canary-of-12+/";
    let ears = Ears::of(&[("it", secret.to_vec())]);
    let base64 = |text: &[u8]| openssl::base64::encode_block(text);
    for said in [
        "a canary-of-12+/ in the open".to_owned(),
        format!("{secret:?}"),
        secret.iter().map(|byte| format!("{byte:02X}")).collect(),
        base64(secret),
        base64(b"1canary-of-12+/ and more"),
        base64(b"12canary-of-12+/ and more"),
    ] {
        assert!(ears.heard(said.as_bytes()).contains("it"), "{said}");
    }
    assert!(ears.heard(b"canary-of-13+/").is_empty());
    let ears = Ears::of(&[("it", b"739158".to_vec())]);
    assert!(ears.heard(b"pin=739158").contains("it"));
    assert!(ears.heard(b"a7391581").is_empty());
}
