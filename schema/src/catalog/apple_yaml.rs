//! Holds the table against Apple's own schema files, where they are at hand.
//!
//! A YAML crate for one test would be much; the files are regular enough to be read by
//! their indentation. This reader knows `requesttype`, `key`, `type`, `presence`,
//! `rangelist` and `subkeys`, and nothing else.

mod rights;

use std::fs;
use std::path::{Path, PathBuf};

use super::row::{Key, Kind};
use super::{CATALOG, find};

/// A key as the file states it.
#[derive(Debug, Default)]
struct Stated {
    name: String,
    kind: String,
    required: bool,
    values: Vec<String>,
    subkeys: Vec<Stated>,
}

/// Where Apple's files are; says aloud that a test is skipped when they are not there.
fn schema_root() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/apple-device-management");
    if !root.join("mdm/commands").is_dir() {
        println!("skipped: no Apple schema at {}", root.display());
        return None;
    }
    Some(root)
}

#[test]
fn the_table_agrees_with_apples_schema() {
    let Some(root) = schema_root() else { return };
    let folders =
        ["mdm/commands", "newer/single-files/mdm/commands"].map(|folder| root.join(folder));
    let mut wrong = Vec::new();
    let mut seen = Vec::new();
    for file in folders.iter().flat_map(|folder| yaml_files(folder)) {
        let text = fs::read_to_string(&file).unwrap();
        let request_type = field(&text, "  requesttype: ").unwrap().to_owned();
        match find(&request_type) {
            None => wrong.push(format!("{request_type}: not in the table")),
            Some(row) => {
                compare(&request_type, row.keys, &payload_keys(&text), &mut wrong);
                platforms(row, &text, &mut wrong);
            }
        }
        seen.push(request_type);
    }
    let extra = CATALOG
        .iter()
        .filter(|row| !seen.iter().any(|name| name == row.request_type));
    wrong.extend(extra.map(|row| format!("{}: not in Apple's files", row.request_type)));
    assert_eq!(wrong, [""; 0]);
    assert_eq!(seen.len(), CATALOG.len());
}

/// Compares keys with keys, both ways, and goes into what they contain.
fn compare(within: &str, keys: &[Key], stated: &[Stated], wrong: &mut Vec<String>) {
    for key in keys {
        let place = format!("{within}/{}", key.name);
        if LATER.contains(&&*place) {
            continue;
        }
        match stated.iter().find(|stated| stated.name == key.name) {
            None => wrong.push(format!("{place}: not in Apple's file")),
            Some(stated) if stated.required != key.required => {
                wrong.push(format!("{place}: required is {}", stated.required));
            }
            Some(stated) => compare_kind(&place, &key.kind, stated, wrong),
        }
    }
    for stated in stated {
        if !keys.iter().any(|key| key.name == stated.name) {
            wrong.push(format!("{within}/{}: missing in the table", stated.name));
        }
    }
}

fn compare_kind(place: &str, kind: &Kind, stated: &Stated, wrong: &mut Vec<String>) {
    let (name, values): (&str, Vec<String>) = match kind {
        Kind::Choice(values) => ("string", values.iter().map(|v| (*v).to_owned()).collect()),
        Kind::String | Kind::Digits(_) => ("string", Vec::new()),
        Kind::IntegerChoice(values) => ("integer", values.iter().map(i64::to_string).collect()),
        Kind::Integer { .. } => ("integer", Vec::new()),
        Kind::Boolean => ("boolean", Vec::new()),
        Kind::Real => ("real", Vec::new()),
        Kind::Date => ("date", Vec::new()),
        Kind::Data | Kind::DataUpTo(_) => ("data", Vec::new()),
        Kind::Array(_) => ("array", Vec::new()),
        Kind::Dict(_) | Kind::Open | Kind::Items(_) => ("dictionary", Vec::new()),
        Kind::Any => ("any", Vec::new()),
    };
    if (name, &values) != (&*stated.kind, &stated.values) {
        wrong.push(format!("{place}: is {} {:?}", stated.kind, stated.values));
    }
    match (kind, &*stated.subkeys) {
        (Kind::Dict(keys), subkeys) => compare(place, keys, subkeys, wrong),
        (Kind::Open, subkeys) if subkeys.iter().any(|subkey| subkey.name != "ANY") => {
            wrong.push(format!("{place}: has stated keys"));
        }
        (Kind::Array(Kind::Items(items)), subkeys) => {
            let names: Vec<_> = items.iter().map(|item| item.name).collect();
            let stated: Vec<_> = subkeys.iter().map(|subkey| &*subkey.name).collect();
            assert_eq!(names, stated, "{place}");
            for (item, subkey) in items.iter().zip(subkeys) {
                let keys = [&[super::req("Item", Kind::Choice(&[]))], item.keys].concat();
                let mut odd = Vec::new();
                compare(item.name, &keys, &subkey.subkeys, &mut odd);
                // Each file's Item has one allowed value, which is what tells items apart.
                odd.retain(|line| *line != format!("{0}/Item: is string [\"{0}\"]", item.name));
                wrong.append(&mut odd);
            }
        }
        (Kind::Array(of), [element]) => compare_kind(&format!("{place}[]"), of, element, wrong),
        (Kind::Array(_), subkeys) => {
            wrong.push(format!("{place}: has {} elements", subkeys.len()));
        }
        _ => {}
    }
}

/// Compares platforms, their first versions and the flags; a platform that is stated as
/// `n/a` or not at all must not be in the row.
fn platforms(row: &super::Row, text: &str, wrong: &mut Vec<String>) {
    use super::{Channels, Platform, SharedIpad};
    let all = [
        (Platform::Ios, "iOS"),
        (Platform::MacOs, "macOS"),
        (Platform::TvOs, "tvOS"),
        (Platform::VisionOs, "visionOS"),
        (Platform::WatchOs, "watchOS"),
    ];
    for (platform, name) in all {
        let block = block(text, &format!("    {name}:"), 6);
        let value = |key: &str| field(block, key).map(|value| value.trim_matches('\''));
        let is = |key: &str| value(key) == Some("true");
        let min_os = value("      introduced: ").filter(|os| *os != "n/a");
        let support = row.support(platform);
        if support.map(|support| support.min_os) != min_os {
            wrong.push(format!("{} on {name}: from {min_os:?}", row.request_type));
        }
        let Some(support) = support else { continue };
        let enrollment = self::block(block, "      userenrollment:", 8);
        let flags = [
            ("supervised", support.supervised, is("      supervised: ")),
            ("ade", support.ade_only, is("      requiresdep: ")),
            (
                "ue",
                support.user_enrollment,
                field(enrollment, "        mode: ") == Some("allowed"),
            ),
        ];
        for (flag, ours, theirs) in flags {
            if ours != theirs {
                wrong.push(format!(
                    "{} on {name}: {flag} is {theirs}",
                    row.request_type
                ));
            }
        }
        let ipad = self::block(block, "      sharedipad:", 8);
        let channels = |text: &str, indent: &str| Channels {
            device: field(text, &format!("{indent}devicechannel: ")) == Some("true"),
            user: field(text, &format!("{indent}userchannel: ")) == Some("true"),
        };
        let shared = match field(ipad, "        mode: ") {
            Some("allowed") => SharedIpad::Allowed(channels(ipad, "        ")),
            Some("required") => SharedIpad::Only(channels(ipad, "        ")),
            _ => SharedIpad::Forbidden,
        };
        if platform == Platform::Ios && row.shared_ipad != shared {
            wrong.push(format!("{}: Shared iPad is {shared:?}", row.request_type));
        }
        let mac = channels(block, "      ");
        if platform == Platform::MacOs && row.mac_channels != mac {
            wrong.push(format!("{}: macOS channels are {mac:?}", row.request_type));
        }
        let right = value("      accessrights: ");
        if row.rights_on(platform).bits() != bits(right) {
            wrong.push(format!(
                "{} on {name}: right is {right:?}",
                row.request_type
            ));
        }
    }
}

/// Apple's schema names of the rights. DeviceInformation is the special case: each query
/// has its own, see `query_rights`.
fn bits(right: Option<&str>) -> u16 {
    match right {
        None | Some("None" | "Special Case") => 0,
        Some("AllowInspection") => 1,
        Some("AllowInstallationRemoval") => 2,
        Some("AllowPasscodeRemovalAndLock" | "DeviceLockAndRemovePasscode") => 4,
        Some("AllowDeviceErase") => 8,
        Some("AllowQueryDeviceInformation") => 16,
        Some("AllowQueryNetworkInformation") => 32,
        Some("AllowProvisioningInspection") => 64,
        Some("AllowProvisioningInstallationRemoval") => 128,
        Some("AllowQueryApplications" | "QueryInstalledApps") => 256,
        Some("AllowQueryRestrictions") => 512,
        Some("AllowQuerySecurity") => 1024,
        Some("AllowSettings") => 2048,
        Some("AllowAppInstallation") => 4096,
        Some(unknown) => panic!("unknown right {unknown}"),
    }
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    files.sort();
    files
}

/// The value of the first line that begins with `prefix`.
fn field<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(prefix))
}

/// The lines below the first line `head` that are indented by at least `indent`.
fn block<'a>(text: &'a str, head: &str, indent: usize) -> &'a str {
    let Some((_, below)) = text.split_once(&format!("{head}\n")) else {
        return "";
    };
    let deep = |line: &&str| line.len() - line.trim_start().len() >= indent;
    let length = below
        .split_inclusive('\n')
        .take_while(deep)
        .map(str::len)
        .sum();
    &below[..length]
}

fn payload_keys(text: &str) -> Vec<Stated> {
    let Some((_, below)) = text.split_once("\npayloadkeys:\n") else {
        return Vec::new();
    };
    let of_list = |line: &&str| line.is_empty() || line.starts_with([' ', '-']);
    let lines = below.lines().take_while(of_list);
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    list(&lines, 0)
}

/// The keys of one list; its items begin with `- key:` at `indent`.
fn list(lines: &[&str], indent: usize) -> Vec<Stated> {
    let (item, pad) = (
        format!("{}- key: ", " ".repeat(indent)),
        " ".repeat(indent + 2),
    );
    let mut keys: Vec<Stated> = Vec::new();
    let mut at = 0;
    let mut in_range = false;
    while let Some(line) = lines.get(at) {
        at += 1;
        if let Some(name) = line.strip_prefix(&item) {
            keys.push(Stated {
                name: name.into(),
                ..Stated::default()
            });
            in_range = false;
            continue;
        }
        let Some(key) = keys.last_mut() else { break };
        let Some(rest) = line.strip_prefix(&pad) else {
            break;
        };
        if let Some(value) = rest.strip_prefix("- ").filter(|_| in_range) {
            key.values.push(value.trim_matches('\'').into());
        } else if !rest.starts_with(' ') {
            in_range = rest == "rangelist:";
            if let Some(kind) = rest.strip_prefix("type: ") {
                key.kind = kind.trim_matches(['<', '>']).into();
            } else if rest == "presence: required" {
                key.required = true;
            } else if rest == "subkeys:" {
                key.subkeys = list(&lines[at..], indent + 2);
                let below = |line: &&&str| line.starts_with(&pad) && !is_field(line, indent + 2);
                at += lines[at..].iter().take_while(below).count();
            }
        }
    }
    keys
}

/// Whether the line begins a field at exactly that indentation.
fn is_field(line: &str, indent: usize) -> bool {
    line.get(indent..)
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
}

/// What the table has beyond the files, and why: keys of releases after the schema at hand,
/// from Apple's published pages for iOS 26 and 27. The `removed_in` of the OS update commands
/// is of iOS 27 too; no file states one.
const LATER: [&str; 2] = [
    "EraseDevice/ReturnToService/BootstrapToken",
    "EraseDevice/ReturnToService/ShouldRetryEnrollment",
];
