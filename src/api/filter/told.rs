//! Conditions on what devices told: the inventory. A device that did not tell meets none.

use actors::{Store, StoreError};
use schema::inventory::{Fact, Kind, Known};
use schema::x509::Certificate;
use schema::{ChannelNo, UnixMillis};

use super::Filter;
use crate::api::rendering::read_time;

/// The conditions of a filter that the inventory answers, read.
#[derive(Debug, Default)]
pub(super) struct Told {
    supervised: Option<bool>,
    filevault: Option<bool>,
    passcode: Option<bool>,
    free_gb_below: Option<f64>,
    certificate_expires_before: Option<UnixMillis>,
    app: Option<String>,
    profile: Option<String>,
}

impl Told {
    /// Reads them; `fault` is told of each that cannot be, by its name.
    pub(super) fn read(filter: &Filter, mut fault: impl FnMut(&str, &str)) -> Self {
        let mut flag = |name: &str, text: &Option<String>| match text.as_deref() {
            None => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) => {
                fault(name, "must be true or false");
                None
            }
        };
        let supervised = flag("supervised", &filter.supervised);
        let filevault = flag("filevault", &filter.filevault);
        let passcode = flag("passcode", &filter.passcode);
        let gigabytes = filter.free_gb_below.as_deref().map(|text| {
            let number = text.parse().ok();
            number.filter(|number: &f64| number.is_finite() && *number >= 0.0)
        });
        if gigabytes == Some(None) {
            fault("free_gb_below", "must be a number of gigabytes");
        }
        let expiry = filter.certificate_expires_before.as_deref().map(read_time);
        if expiry == Some(None) {
            fault("certificate_expires_before", "must be a time in RFC 3339");
        }
        Self {
            supervised,
            filevault,
            passcode,
            free_gb_below: gigabytes.flatten(),
            certificate_expires_before: expiry.flatten(),
            app: filter.app.clone(),
            profile: filter.profile.clone(),
        }
    }

    /// Did a device tell what is asked?
    pub(super) fn takes(&self, store: &Store, device: ChannelNo) -> Result<bool, StoreError> {
        let mut all = Asked {
            store,
            device,
            met: true,
        };
        all.of(Kind::DeviceInformation, self.supervised, |known, wanted| {
            known.get("IsSupervised").and_then(Fact::flag) == Some(wanted)
        })?;
        all.of(
            Kind::DeviceInformation,
            self.free_gb_below,
            |known, most| {
                let free = known.get("AvailableDeviceCapacity");
                free.and_then(Fact::number).is_some_and(|free| free < most)
            },
        )?;
        all.of(Kind::SecurityInfo, self.filevault, |known, wanted| {
            known.get("FDE_Enabled").and_then(Fact::flag) == Some(wanted)
        })?;
        all.of(Kind::SecurityInfo, self.passcode, |known, wanted| {
            known.get("PasscodePresent").and_then(Fact::flag) == Some(wanted)
        })?;
        all.of(
            Kind::InstalledApplicationList,
            self.app.as_ref(),
            |known, app| known.has("Identifier", app),
        )?;
        all.of(
            Kind::ProfileList,
            self.profile.as_ref(),
            |known, profile| known.has("PayloadIdentifier", profile),
        )?;
        let before = self.certificate_expires_before;
        all.of(Kind::CertificateList, before, |known, before| {
            known.items().iter().any(|item| expires(item, before))
        })?;
        Ok(all.met)
    }
}

/// Conditions on one device; what is not asked is not read.
struct Asked<'s> {
    store: &'s Store,
    device: ChannelNo,
    met: bool,
}

impl Asked<'_> {
    fn of<T>(
        &mut self,
        kind: Kind,
        wanted: Option<T>,
        meets: impl FnOnce(&Known, T) -> bool,
    ) -> Result<(), StoreError> {
        if let Some(wanted) = wanted
            && self.met
        {
            let known = self.store.known(self.device, kind)?;
            self.met = known.is_some_and(|known| meets(&known, wanted));
        }
        Ok(())
    }
}

fn expires(item: &Fact, before: UnixMillis) -> bool {
    let der = item.get("Data").and_then(Fact::data);
    let certificate = der.and_then(|der| Certificate::parse(der).ok());
    let before = i64::try_from(before.seconds()).unwrap_or(i64::MAX);
    certificate.is_some_and(|certificate| certificate.not_after < before)
}
