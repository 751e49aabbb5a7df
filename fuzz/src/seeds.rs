//! What the campaign starts from: messages of the simulator, so that a reader is not
//! first to be taught what a plist is.

use std::fs;
use std::path::Path;

use openssl::base64::decode_block;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use sim::{Channel, Command, Device, Dice, Kind, ScepCsr, ScepRequest, scep_signer};

use crate::signed::{BODY, authority};

/// Writes the seeds of a reader, a file each.
pub fn write(reader: &str, directory: &Path) {
    fs::create_dir_all(directory).expect("a directory");
    for (no, seed) in seeds(reader).into_iter().enumerate() {
        fs::write(directory.join(format!("seed-{no:03}")), seed).expect("a file");
    }
}

fn seeds(reader: &str) -> Vec<Vec<u8>> {
    match reader {
        "xml" => [check_ins(), reports(), commands()].concat(),
        "check_in" => check_ins(),
        "report" => reports(),
        "ber" => [signatures(), csrs(), pki_messages(), vec![certificate()]].concat(),
        "csr" => csrs(),
        "scep" => pki_messages(),
        "admin_json" => [commands(), json()].concat(),
        "client_cert" => client_certs(),
        "signature" => {
            let header = |message: Vec<u8>| openssl::base64::encode_block(&message).into_bytes();
            let raw = signatures()
                .into_iter()
                .map(header)
                .map(|seed| after(0, seed));
            let messages = signatures().into_iter().map(|seed| after(1, seed));
            raw.chain(messages)
                .chain([after(2, BODY.to_vec())])
                .collect()
        }
        "scep_answer" => {
            let whole = pki_messages().into_iter().map(|seed| after(0, seed));
            let inside = csrs()
                .into_iter()
                .flat_map(|seed| [after(1, seed.clone()), after(2, seed)]);
            whole
                .chain(inside)
                .chain([after(5, b"19".to_vec())])
                .collect()
        }
        _ => Vec::new(),
    }
}

fn after(how: u8, seed: Vec<u8>) -> Vec<u8> {
    [vec![how], seed].concat()
}

fn devices() -> Vec<Device> {
    let (authority, mut dice) = (authority(), Dice::new(1));
    [Kind::IPhone, Kind::Mac, Kind::AppleTv]
        .map(|kind| {
            let device = Device::seeded(&authority, "com.apple.mgmt.x", kind, &mut dice);
            device.expect("a device").with_user(&mut dice)
        })
        .to_vec()
}

fn check_ins() -> Vec<Vec<u8>> {
    let of = |device: &Device| {
        let mut all = vec![
            device.authenticate(),
            device.token_update(),
            device.check_out(),
            device.set_bootstrap_token(&[7; 32]),
            device.get_bootstrap_token(),
        ];
        all.extend(device.user_token_update());
        all
    };
    devices().iter().flat_map(of).collect()
}

fn reports() -> Vec<Vec<u8>> {
    let of = |device: &Device| {
        let mut all = vec![device.idle(Channel::Device), device.idle(Channel::User)];
        for command in commands() {
            if let Ok(Some(command)) = Command::parse(&command) {
                let outcome = sim::answer(device, &command, 500);
                all.push(device.report(Channel::Device, "uuid", &outcome, 500));
            }
        }
        all
    };
    devices().iter().flat_map(of).collect()
}

fn json() -> Vec<Vec<u8>> {
    let examples = [
        r#"{"request_type":"DeviceInformation","queries":["UDID","OSVersion"]}"#,
        r#"{"RequestType":"InstallProfile","Payload":"PHBsaXN0Lz4="}"#,
        r#"{"request_type":"EraseDevice","pin":"123456","return_to_service":{"enabled":true}}"#,
        r#"{"request_type":"Settings","settings":[{"item":"DeviceName","device_name":"a"}]}"#,
        r#"{"request_type":"ScheduleOSUpdate","updates":[{"install_action":"Default"}]}"#,
        r#"{"request_type":"DeviceLock","pin":"123456","message":"m","phone_number":"1"}"#,
        r#"{"max_uses":3,"tags":["loan"],"access_rights":["erase"],"device":"D"}"#,
        r#"{"pem":"-----BEGIN CERTIFICATE-----","passphrase":"p"}"#,
    ];
    examples.map(|text| text.as_bytes().to_vec()).to_vec()
}

fn commands() -> Vec<Vec<u8>> {
    let types = [
        "DeviceInformation",
        "SecurityInfo",
        "InstalledApplicationList",
        "ProfileList",
        "CertificateList",
        "UserList",
        "AvailableOSUpdates",
        "Restrictions",
        "DeviceLock",
        "ScheduleOSUpdate",
        "Settings",
        "DeviceLocation",
    ];
    types
        .map(|kind| {
            format!(
                "<plist version=\"1.0\"><dict><key>CommandUUID</key><string>uuid</string>\
                 <key>Command</key><dict><key>RequestType</key><string>{kind}</string>\
                 <key>Queries</key><array><string>UDID</string></array></dict></dict></plist>"
            )
            .into_bytes()
        })
        .to_vec()
}

fn signatures() -> Vec<Vec<u8>> {
    let sign = |device: Device| {
        let header = device.identity.sign(BODY).expect("a signature");
        decode_block(&header).expect("base64")
    };
    devices().into_iter().map(sign).collect()
}

fn certificate() -> Vec<u8> {
    authority()
        .issue("seed")
        .expect("a certificate")
        .cert_der
        .to_vec()
}

fn client_certs() -> Vec<Vec<u8>> {
    let identity = authority().issue("seed").expect("a certificate");
    let pem = String::from_utf8(identity.cert_pem().expect("PEM")).expect("text");
    let escaped = pem
        .replace('\n', "%0A")
        .replace(' ', "%20")
        .replace('+', "%2B");
    let der = openssl::base64::encode_block(&identity.cert_der);
    [
        identity.header_rfc9440(),
        escaped,
        pem.replace('\n', " "),
        der,
    ]
    .map(String::into_bytes)
    .to_vec()
}

fn csrs() -> Vec<Vec<u8>> {
    let key = PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key");
    let csr = |challenge: Option<&str>, extensions: Option<Vec<u8>>| {
        let csr = ScepCsr {
            common_name: "seed".into(),
            challenge: challenge.map(str::to_owned),
            extensions,
        };
        csr.sign(&key).expect("a request")
    };
    vec![
        csr(Some("challenge"), None),
        csr(None, None),
        csr(Some("c"), Some(vec![0x30, 0])),
    ]
}

fn pki_messages() -> Vec<Vec<u8>> {
    let key = PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key");
    let signer = scep_signer(&key).expect("a signer");
    let ra = openssl::x509::X509::from_der(&signer.cert_der).expect("a certificate");
    let message = |kind: &str, csr: Vec<u8>| {
        let request = ScepRequest::new(kind, csr, signer.clone()).expect("a request");
        request.encode(&ra).expect("a message")
    };
    csrs()
        .into_iter()
        .flat_map(|csr| [message("19", csr.clone()), message("17", csr)])
        .collect()
}
