//! How a person spells Apple's names, and what they meant.
//!
//! The catalog compares names folded, so `itunes_store_id`, `i_tunes_store_id` and
//! `iTunesStoreID` are one key. No list of aliases exists; this rule is all there is.

/// The form in which two spellings of one key are equal: no underscores, lower case.
pub(super) fn fold(name: &str) -> String {
    name.chars()
        .filter(|c| *c != '_')
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// Apple's name in the admin API's snake_case, for instance `itunes_store_id`.
pub fn snake(name: &str) -> String {
    let mut name = name.to_owned();
    for (brand, word) in BRANDS {
        name = name.replace(brand, word);
    }
    let letters: Vec<char> = name.chars().collect();
    let mut snake = String::with_capacity(name.len() + 8);
    for (i, letter) in letters.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|i| letters.get(i));
        let after = letters.get(i + 1);
        let starts_word = letter.is_ascii_uppercase()
            && before.is_some_and(|before| {
                before.is_ascii_lowercase()
                    || before.is_ascii_digit()
                    || (before.is_ascii_uppercase() && after.is_some_and(char::is_ascii_lowercase))
            });
        if starts_word {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// The candidate a mistyped name most likely meant, if one is close.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let name = fold(name);
    if name.len() > LONGEST {
        return None;
    }
    let reach = (name.len() / 3).max(1);
    let scored = candidates
        .into_iter()
        .map(|candidate| (distance(&name, &fold(candidate)), candidate));
    let (best, candidate) = scored.min_by_key(|(distance, _)| *distance)?;
    (best <= reach).then_some(candidate)
}

/// How many letters must be inserted, removed or replaced (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        let mut left = i + 1;
        next.push(left);
        for ((pair, other), _) in row.windows(2).zip(&b).zip(0..) {
            let &[diagonal, above] = pair else { break };
            left = (diagonal + usize::from(letter != *other))
                .min(above + 1)
                .min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// Words whose capitals would split in the wrong place.
const BRANDS: [(&str, &str); 6] = [
    ("iTunes", "Itunes"),
    ("eSIM", "Esim"),
    ("iOS", "Ios"),
    ("WiFi", "Wifi"),
    ("IPv6", "Ipv6"),
    ("VPNUUID", "VpnUuid"),
];

/// Longer names get no suggestion, so that a hostile one costs nothing.
const LONGEST: usize = 80;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn snake_case_reads_as_a_person_would_write_it() {
        let cases = [
            ("RequestType", "request_type"),
            ("PIN", "pin"),
            ("iTunesStoreID", "itunes_store_id"),
            ("iOSApp", "ios_app"),
            ("eSIMServerURL", "esim_server_url"),
            ("WiFiProfileData", "wifi_profile_data"),
            ("PrimaryIPv6AddressList", "primary_ipv6_address_list"),
            ("ManifestURLPinningCerts", "manifest_url_pinning_certs"),
            ("passwordHash", "password_hash"),
            ("VPNUUID", "vpn_uuid"),
            ("DNSProxyUUID", "dns_proxy_uuid"),
        ];
        for (apple, ours) in cases {
            assert_eq!(snake(apple), ours);
            assert_eq!(fold(apple), fold(ours));
        }
    }

    #[test]
    fn a_near_miss_is_recognised_and_a_far_one_is_not() {
        let names = ["DeviceLock", "DeviceLocation", "EraseDevice"];
        let cases = [
            ("DeviceLok", Some("DeviceLock")),
            ("device_lock", Some("DeviceLock")),
            ("EraseDevise", Some("EraseDevice")),
            ("Frobnicate", None),
            ("", None),
        ];
        for (typed, meant) in cases {
            assert_eq!(nearest(typed, names), meant, "{typed}");
        }
    }

    proptest! {
        #[test]
        fn snake_never_changes_which_key_is_meant(name in "[A-Za-z0-9]{0,30}") {
            prop_assert_eq!(fold(&snake(&name)), fold(&name));
        }
    }
}
