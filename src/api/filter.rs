//! Which devices are meant: the filter of `GET /devices` and of targets.

mod told;

use actors::store::Device;
use actors::{Store, StoreError};
use schema::enrollment::ChannelState;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::rendering::read_time;
use crate::error::{Field, Problem};

/// Conditions a device must meet, all of them.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Part of the id, the serial number or the name; case does not matter.
    pub q: Option<String>,
    /// The serial number.
    pub serial: Option<String>,
    /// `pending`, `enrolled`, `checked_out` or `inactive` (enrolled, but silent for a week).
    pub state: Option<String>,
    /// `iOS`, `iPadOS`, `macOS`, `tvOS`, `watchOS` or `visionOS`; case does not matter.
    pub platform: Option<String>,
    /// Apple's product name, such as `iPad4,1`.
    pub model: Option<String>,
    /// `17.4`, `>=17.4`, `>17`, `<=18` or `<18`.
    pub os_version: Option<String>,
    /// A tag an admin gave.
    pub tag: Option<String>,
    /// Last contact before this time (RFC 3339).
    pub seen_before: Option<String>,
    /// Last contact after this time (RFC 3339).
    pub seen_after: Option<String>,
    /// `true` or `false`: supervised, as DeviceInformation told. A device that did not tell
    /// is in neither, here and below.
    pub supervised: Option<String>,
    /// `true` or `false`: FileVault is on, as SecurityInfo told.
    pub filevault: Option<String>,
    /// `true` or `false`: a passcode is set, as SecurityInfo told.
    pub passcode: Option<String>,
    /// Free capacity below so many gigabytes, as DeviceInformation told.
    pub free_gb_below: Option<String>,
    /// The bundle identifier of an installed app, as InstalledApplicationList told.
    pub app: Option<String>,
    /// The identifier of an installed profile, as ProfileList told.
    pub profile: Option<String>,
    /// A certificate that ends before this time (RFC 3339), as CertificateList told.
    pub certificate_expires_before: Option<String>,
}

/// A filter that was read and can be asked.
#[derive(Debug)]
pub struct Test {
    filter: Filter,
    q: Option<String>,
    os_version: Option<(Comparison, Vec<u64>)>,
    seen_before: Option<schema::UnixMillis>,
    seen_after: Option<schema::UnixMillis>,
    silent_since: schema::UnixMillis,
    told: told::Told,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Filter {
    /// Reads the conditions. `pointer` says where the filter stands, for errors.
    ///
    /// # Errors
    /// 422 naming the condition at fault.
    pub fn read(self, pointer: &str, now: schema::UnixMillis) -> Result<Test, Problem> {
        let at = |name: &str| format!("{pointer}/{name}");
        let mut errors = Vec::new();
        let mut fault = |name: &str, detail: &str| {
            errors.push(Field {
                pointer: at(name),
                detail: detail.to_owned(),
            });
        };
        if let Some(state) = self.state.as_deref()
            && !STATES.contains(&state)
        {
            fault(
                "state",
                "must be pending, enrolled, checked_out or inactive",
            );
        }
        let os_version = self.os_version.as_deref().map(version_test);
        if os_version == Some(None) {
            fault(
                "os_version",
                "must be a version such as 17.4, with >=, >, <= or < before it",
            );
        }
        let mut moment = |name: &str, text: &Option<String>| {
            let read = text.as_deref().map(read_time);
            if read == Some(None) {
                fault(name, "must be a time in RFC 3339");
            }
            read.flatten()
        };
        let seen_before = moment("seen_before", &self.seen_before);
        let seen_after = moment("seen_after", &self.seen_after);
        let told = told::Told::read(&self, |name, detail| fault(name, detail));
        if !errors.is_empty() {
            return Err(Problem::fields(errors));
        }
        Ok(Test {
            told,
            q: self.q.as_ref().map(|q| q.to_lowercase()),
            os_version: os_version.flatten(),
            seen_before,
            seen_after,
            silent_since: now.minus_seconds(7 * 24 * 3600),
            filter: self,
        })
    }
}

impl Test {
    /// Does a device meet the conditions? What it told is read last, and only when asked.
    ///
    /// # Errors
    /// [`StoreError`] when that cannot be read.
    pub fn takes(&self, device: &Device, store: &Store) -> Result<bool, StoreError> {
        let channel = device.enrollment.channel.no;
        Ok(self.knows(device) && self.told.takes(store, channel)?)
    }

    fn knows(&self, device: &Device) -> bool {
        let enrollment = &device.enrollment;
        let facts = &enrollment.facts;
        let filter = &self.filter;
        let is = |wanted: &Option<String>, has: &str| {
            wanted
                .as_ref()
                .is_none_or(|wanted| wanted.eq_ignore_ascii_case(has))
        };
        let seen = device.last_seen;
        is(&filter.serial, &facts.serial_number)
            && is(&filter.model, &facts.model)
            && is(&filter.platform, facts.platform())
            && filter
                .state
                .as_deref()
                .is_none_or(|state| self.has_state(device, state))
            && filter
                .tag
                .as_ref()
                .is_none_or(|tag| device.annotation.tags.contains(tag))
            && self
                .seen_before
                .is_none_or(|before| seen.is_none_or(|seen| seen < before))
            && self
                .seen_after
                .is_none_or(|after| seen.is_some_and(|seen| seen > after))
            && self
                .os_version
                .as_ref()
                .is_none_or(|test| matches_version(test, &facts.os_version))
            && self.q.as_ref().is_none_or(|q| {
                let name = device.annotation.name.as_ref().unwrap_or(&facts.name);
                [enrollment.channel.id.as_str(), &facts.serial_number, name]
                    .iter()
                    .any(|text| text.to_lowercase().contains(q))
            })
    }

    fn has_state(&self, device: &Device, state: &str) -> bool {
        let enrolled = matches!(
            device.enrollment.channel.state,
            ChannelState::Enrolled { .. }
        );
        let silent = device.last_seen.is_none_or(|seen| seen < self.silent_since);
        match state {
            "inactive" => enrolled && silent,
            state => device.enrollment.channel.state.name() == state,
        }
    }
}

fn version_test(text: &str) -> Option<(Comparison, Vec<u64>)> {
    let (comparison, version) = [
        (">=", Comparison::AtLeast),
        ("<=", Comparison::AtMost),
        (">", Comparison::Greater),
        ("<", Comparison::Less),
        ("", Comparison::Equal),
    ]
    .into_iter()
    .find_map(|(sign, comparison)| Some((comparison, text.strip_prefix(sign)?)))?;
    Some((comparison, numbers(version.trim())?))
}

fn numbers(version: &str) -> Option<Vec<u64>> {
    version.split('.').map(|part| part.parse().ok()).collect()
}

fn matches_version((comparison, wanted): &(Comparison, Vec<u64>), has: &str) -> bool {
    let Some(mut has) = numbers(has) else {
        return false;
    };
    let mut wanted = wanted.clone();
    if *comparison == Comparison::Equal {
        // 17 means every 17.x.
        has.resize(has.len().max(wanted.len()), 0);
        return has.starts_with(&wanted);
    }
    let length = has.len().max(wanted.len());
    has.resize(length, 0);
    wanted.resize(length, 0);
    match comparison {
        Comparison::Less => has < wanted,
        Comparison::AtMost => has <= wanted,
        Comparison::Greater => has > wanted,
        Comparison::AtLeast => has >= wanted,
        Comparison::Equal => has == wanted,
    }
}

const STATES: [&str; 4] = ["pending", "enrolled", "checked_out", "inactive"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number_and_a_short_one_means_all_below_it() {
        let cases = [
            ("17", "17.4.1", true),
            ("17.4", "17.4", true),
            ("17.4", "17.10", false),
            (">=17.4", "17.10", true),
            ("<18", "17.10", true),
            ("<18", "18", false),
            (">17.4", "17.4.0", false),
            ("<=17.4", "17.4.0", true),
            ("17", "", false),
        ];
        for (test, has, expected) in cases {
            let read = version_test(test).unwrap();
            assert_eq!(matches_version(&read, has), expected, "{test} {has}");
        }
        assert_eq!(version_test(">=x"), None);
    }

    #[test]
    fn each_condition_at_fault_is_named() {
        let filter = Filter {
            state: Some("lost".into()),
            os_version: Some("new".into()),
            seen_after: Some("today".into()),
            ..Filter::default()
        };
        let problem = filter
            .read("/targets/filter", schema::UnixMillis(0))
            .unwrap_err();
        let pointers: Vec<_> = problem.errors.iter().map(|e| e.pointer.as_str()).collect();
        assert_eq!(
            pointers,
            [
                "/targets/filter/state",
                "/targets/filter/os_version",
                "/targets/filter/seen_after"
            ]
        );
    }
}
