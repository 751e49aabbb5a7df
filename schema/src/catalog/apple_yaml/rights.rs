//! The rights of single queries and settings items, as Apple's files state them.

use std::collections::BTreeMap;

use super::super::{Kind, find, query_rights};
use super::{bits, schema_root};

/// Rights by key of a list whose items begin at `indent`; the same on every platform that
/// states one.
fn stated(text: &str, list: &str, indent: usize) -> BTreeMap<String, u16> {
    let item = format!("{}- key: ", " ".repeat(indent));
    let right = format!("{}accessrights: ", " ".repeat(indent + 6));
    let mut found = BTreeMap::new();
    let mut current: Option<String> = None;
    let (_, below) = text.split_once(list).unwrap();
    for line in below.lines() {
        if !line.starts_with(' ') && !line.is_empty() {
            break;
        }
        if let Some(name) = line.strip_prefix(&item) {
            found.insert(name.to_owned(), 0);
            current = Some(name.to_owned());
        } else if let (Some(name), Some(right)) = (&current, line.strip_prefix(&right))
            && right != "n/a"
        {
            let before = found.insert(name.clone(), bits(Some(right))).unwrap();
            assert!(before == 0 || before == bits(Some(right)), "{name}");
        }
    }
    found
}

#[test]
fn each_query_needs_the_right_apple_states() {
    let Some(root) = schema_root() else { return };
    let file = root.join("mdm/commands/information.device.yaml");
    let text = std::fs::read_to_string(file).unwrap();
    let stated = stated(&text, "\n- key: Queries\n", 4);
    assert!(stated.len() > 60, "{stated:?}");
    let differ = stated.iter().filter(|(name, right)| {
        query_rights(name).bits() != **right && !UNSTATED.contains(&name.as_str())
    });
    assert_eq!(differ.collect::<Vec<_>>(), []);
    for name in UNSTATED {
        assert_eq!(stated.get(*name), Some(&0), "{name} is stated by now");
    }
}

#[test]
fn each_settings_item_needs_the_right_apple_states_besides_that_of_settings() {
    let Some(root) = schema_root() else { return };
    let file = root.join("mdm/commands/settings.yaml");
    let text = std::fs::read_to_string(file).unwrap();
    let stated = stated(&text, "\n- key: Settings\n", 2);
    let settings = find("Settings").unwrap();
    let Kind::Array(Kind::Items(items)) = settings.keys[0].kind else {
        panic!("{:?}", settings.keys);
    };
    let mut brings = 0;
    for item in *items {
        let right = stated.get(item.name).copied().unwrap();
        let beyond = right & !settings.rights.bits();
        assert_eq!(item.rights.bits(), beyond, "{}", item.name);
        brings += u32::from(beyond != 0);
    }
    assert!(brings >= 2);
}

/// Queries whose right no file states; the right to ask for device information is asked
/// for, as for nearly all others.
const UNSTATED: &[&str] = &[
    "AccessibilitySettings",
    "DevicePropertiesAttestation",
    "SoftwareUpdateDeviceID",
    "SoftwareUpdateSettings",
];
