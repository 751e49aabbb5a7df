//! What a device says: the bodies of its check-ins and reports, as XML
//! property lists. Shapes: Apple, "Check-in" and "Commands and queries".

use plist::{Dictionary, Value};

use crate::command::{ErrorItem, Outcome};
use crate::device::{Channel, Device, Kind, PushAddress};

impl Device {
    /// What over-the-air enrollment asks a device to say of itself.
    pub fn attributes(&self, challenge: &str) -> Vec<u8> {
        let mut keys = Dictionary::new();
        put(&mut keys, "UDID", self.udid.as_str());
        put(&mut keys, "SERIAL", self.serial.as_str());
        put(&mut keys, "PRODUCT", self.kind.product_name());
        put(&mut keys, "VERSION", self.build.as_str());
        if self.kind == Kind::IPhone {
            put(&mut keys, "IMEI", "35 123456 789012 3");
        }
        put(&mut keys, "CHALLENGE", challenge);
        xml(keys)
    }

    /// Authenticate.
    pub fn authenticate(&self) -> Vec<u8> {
        let mut keys = self.check_in("Authenticate", Channel::Device);
        put(&mut keys, "Topic", self.topic.as_str());
        put(&mut keys, "DeviceName", self.name.as_str());
        put(&mut keys, "Model", self.kind.product_name());
        put(&mut keys, "ModelName", self.kind.model_name());
        put(&mut keys, "ProductName", self.kind.product_name());
        put(&mut keys, "OSVersion", self.os_version.as_str());
        put(&mut keys, "BuildVersion", self.build.as_str());
        if !self.personal {
            put(&mut keys, "SerialNumber", self.serial.as_str());
        }
        if self.kind == Kind::IPhone && !self.personal {
            put(&mut keys, "IMEI", "35 123456 789012 3");
        }
        xml(keys)
    }

    /// TokenUpdate of the device channel.
    pub fn token_update(&self) -> Vec<u8> {
        let mut keys = self.check_in("TokenUpdate", Channel::Device);
        put(
            &mut keys,
            "AwaitingConfiguration",
            self.awaiting_configuration,
        );
        self.put_push(&mut keys, &self.push);
        if let Some(token) = &self.unlock_token {
            put(&mut keys, "UnlockToken", Value::Data(token.clone()));
        }
        xml(keys)
    }

    /// TokenUpdate of the user channel; `None` without a user.
    pub fn user_token_update(&self) -> Option<Vec<u8>> {
        let user = self.user.as_ref()?;
        let mut keys = self.check_in("TokenUpdate", Channel::User);
        match self.is_shared_ipad() {
            true => put(&mut keys, "AwaitingConfiguration", false),
            false => put(&mut keys, "NotOnConsole", false),
        }
        self.put_push(&mut keys, &user.push);
        Some(xml(keys))
    }

    /// CheckOut.
    pub fn check_out(&self) -> Vec<u8> {
        let mut keys = self.check_in("CheckOut", Channel::Device);
        put(&mut keys, "Topic", self.topic.as_str());
        xml(keys)
    }

    /// SetBootstrapToken; an empty token deletes the stored one.
    pub fn set_bootstrap_token(&self, token: &[u8]) -> Vec<u8> {
        let mut keys = self.check_in("SetBootstrapToken", Channel::Device);
        put(
            &mut keys,
            "AwaitingConfiguration",
            self.awaiting_configuration,
        );
        put(&mut keys, "BootstrapToken", Value::Data(token.to_vec()));
        xml(keys)
    }

    /// GetBootstrapToken.
    pub fn get_bootstrap_token(&self) -> Vec<u8> {
        let mut keys = self.check_in("GetBootstrapToken", Channel::Device);
        put(
            &mut keys,
            "AwaitingConfiguration",
            self.awaiting_configuration,
        );
        xml(keys)
    }

    /// UserAuthenticate: the first leg, or the second with its digest.
    pub fn user_authenticate(&self, digest: Option<&str>) -> Vec<u8> {
        let mut keys = self.check_in("UserAuthenticate", Channel::User);
        if let Some(digest) = digest {
            put(&mut keys, "DigestResponse", digest);
        }
        xml(keys)
    }

    /// GetToken of a service.
    pub fn get_token(&self, channel: Channel, service: &str) -> Vec<u8> {
        let mut keys = self.check_in("GetToken", channel);
        put(&mut keys, "TokenServiceType", service);
        xml(keys)
    }

    /// ReturnToService.
    pub fn return_to_service(&self) -> Vec<u8> {
        xml(self.check_in("ReturnToService", Channel::Device))
    }

    /// DeclarativeManagement; `json` goes with the `status` endpoint.
    pub fn declarative_management(
        &self,
        channel: Channel,
        endpoint: &str,
        json: Option<&[u8]>,
    ) -> Vec<u8> {
        let mut keys = self.check_in("DeclarativeManagement", channel);
        put(&mut keys, "Endpoint", endpoint);
        if let Some(json) = json {
            put(&mut keys, "Data", Value::Data(json.to_vec()));
        }
        xml(keys)
    }

    /// The report `Idle`.
    pub fn idle(&self, channel: Channel) -> Vec<u8> {
        let mut keys = self.ids(channel);
        put(&mut keys, "Status", "Idle");
        xml(keys)
    }

    /// The report on a command, padded to at least `size` bytes when it is
    /// an Acknowledged.
    pub fn report(&self, channel: Channel, uuid: &str, outcome: &Outcome, size: usize) -> Vec<u8> {
        let mut keys = self.ids(channel);
        put(&mut keys, "Status", outcome.status().as_str());
        put(&mut keys, "CommandUUID", uuid);
        match outcome {
            Outcome::Acknowledged(answer) => {
                keys.extend(answer.clone());
                return padded(keys, size);
            }
            Outcome::Error(chain) | Outcome::CommandFormatError(chain) => {
                put(&mut keys, "ErrorChain", error_chain(chain));
            }
            Outcome::NotNow => {}
        }
        xml(keys)
    }

    fn check_in(&self, message_type: &str, channel: Channel) -> Dictionary {
        let mut keys = self.ids(channel);
        put(&mut keys, "MessageType", message_type);
        keys
    }

    fn ids(&self, channel: Channel) -> Dictionary {
        let mut keys = Dictionary::new();
        let (device, of_user) = match self.personal {
            true => ("EnrollmentID", "EnrollmentUserID"),
            false => ("UDID", "UserID"),
        };
        put(&mut keys, device, self.udid.as_str());
        if let (Channel::User, Some(user)) = (channel, &self.user) {
            put(&mut keys, of_user, user.user_id.as_str());
            put(&mut keys, "UserLongName", user.long_name.as_str());
            put(&mut keys, "UserShortName", user.short_name.as_str());
        }
        keys
    }

    fn put_push(&self, keys: &mut Dictionary, push: &PushAddress) {
        put(keys, "Topic", self.topic.as_str());
        put(keys, "Token", Value::Data(push.token.clone()));
        put(keys, "PushMagic", push.magic.as_str());
    }
}

fn put(keys: &mut Dictionary, key: &str, value: impl Into<Value>) {
    keys.insert(key.to_owned(), value.into());
}

fn error_chain(chain: &[ErrorItem]) -> Value {
    let item = |error: &ErrorItem| {
        let mut keys = Dictionary::new();
        put(&mut keys, "ErrorCode", error.code);
        put(&mut keys, "ErrorDomain", error.domain.as_str());
        put(
            &mut keys,
            "LocalizedDescription",
            error.description.as_str(),
        );
        put(
            &mut keys,
            "USEnglishDescription",
            error.description.as_str(),
        );
        Value::Dictionary(keys)
    };
    Value::Array(chain.iter().map(item).collect())
}

/// Adds a key no server knows, as long as needed.
fn padded(mut keys: Dictionary, size: usize) -> Vec<u8> {
    let body = xml(keys.clone());
    if body.len() >= size {
        return body;
    }
    put(&mut keys, "SimulatedPadding", "x".repeat(size - body.len()));
    xml(keys)
}

fn xml(keys: Dictionary) -> Vec<u8> {
    let mut body = Vec::with_capacity(1024);
    // Writing strings, numbers and data to memory cannot fail.
    let written = Value::Dictionary(keys).to_writer_xml(&mut body);
    debug_assert!(written.is_ok(), "{written:?}");
    body
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::{DeviceCa, Dice};

    fn mac() -> Device {
        let dice = &mut Dice::new(1);
        Device::seeded(
            &DeviceCa::quick().unwrap(),
            "com.apple.mgmt.x",
            Kind::Mac,
            dice,
        )
        .unwrap()
        .with_user(dice)
    }

    fn read(body: &[u8]) -> Dictionary {
        let value = Value::from_reader_xml(Cursor::new(body)).unwrap();
        value.into_dictionary().unwrap()
    }

    #[test]
    fn each_channel_sends_its_own_push_address() {
        let mac = mac();
        let user = mac.user.clone().unwrap();
        let device_update = read(&mac.token_update());
        let user_update = read(&mac.user_token_update().unwrap());
        assert_eq!(device_update["Token"].as_data(), Some(&mac.push.token[..]));
        assert!(!device_update.contains_key("UserID"));
        assert_eq!(user_update["Token"].as_data(), Some(&user.push.token[..]));
        assert_eq!(user_update["UserID"].as_string(), Some(&*user.user_id));
        assert_eq!(user_update["UDID"].as_string(), Some(&*mac.udid));
    }

    #[test]
    fn an_acknowledged_report_is_padded_to_size() {
        let done = Outcome::Acknowledged(Dictionary::new());
        let report = mac().report(Channel::Device, "uuid", &done, 10_000);
        assert!((10_000..10_100).contains(&report.len()), "{}", report.len());
        assert_eq!(read(&report)["CommandUUID"].as_string(), Some("uuid"));
    }

    #[test]
    fn an_error_report_carries_its_chain() {
        let failed = Outcome::unknown_request_type("Dance");
        let report = read(&mac().report(Channel::Device, "uuid", &failed, 0));
        assert_eq!(report["Status"].as_string(), Some("Error"));
        let chain = report["ErrorChain"].as_array().unwrap();
        let top = chain[0].as_dictionary().unwrap();
        assert_eq!(top["ErrorCode"].as_signed_integer(), Some(12021));
    }
}
