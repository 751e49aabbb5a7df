//! What admins hand over, rightly and wrongly: keys, passphrases, tokens, PINs, passwords.

use openssl::pkcs12::Pkcs12;
use openssl::pkey::PKey;
use openssl::symm::Cipher;
use openssl::x509::X509;
use reqwest::Method;
use serde_json::{Value, json};
use sim::{Behaviour, Channel, Device, Outcome, Proof};

use super::{Asked, Cage, NANOMDM_KEY};
use crate::house::TOPIC;

const CERTIFICATES: &str = "/api/v1/push-certificates";

/// Push certificates in every form, and what is none.
pub(super) async fn put_push_certificates(cage: &Cage) {
    let (passphrase, password) = (
        cage.made("the passphrase of a push key"),
        cage.made("the password of a PKCS#12"),
    );
    let pem = sim::push_certificate(TOPIC).unwrap();
    let (key, certificate) = (
        PKey::private_key_from_pem(&pem).unwrap(),
        X509::from_pem(&pem).unwrap(),
    );
    // Of a number in the key, enough to be told; its PEM is base64 of the same.
    let exponent = key.rsa().unwrap().d().to_vec();
    cage.canary("the private key of a push certificate", &exponent[64..96]);
    let plain = key.private_key_to_pem_pkcs8().unwrap();
    let line = plain.split(|byte| *byte == b'\n').nth(12).unwrap();
    cage.canary("a line of that key's PEM", line);
    let cipher = Cipher::aes_128_cbc();
    let sealed = key.private_key_to_pem_pkcs8_passphrase(cipher, passphrase.as_bytes());
    let both = [certificate.to_pem().unwrap(), sealed.unwrap()].concat();
    let both = String::from_utf8(both).unwrap();
    let mut file = Pkcs12::builder();
    let file = file.name("push").pkey(&key).cert(&certificate);
    let file = file.build2(&password).unwrap().to_der().unwrap();
    let file = openssl::base64::encode_block(&file);
    let whole = String::from_utf8(pem).unwrap();
    let number: i64 = 918_273_645_546_372_819;
    cage.canary("a passphrase of digits alone", number.to_string());

    let put = async |body: &Value| {
        cage.asks(Method::PUT, CERTIFICATES, Asked::Json(body))
            .await
    };
    for body in [
        json!({"pem": both, "passphrase": format!("{passphrase}x")}),
        json!({"pem": both, "passphrase": number}),
        json!({"pem": both, "passphrase": -number}),
        json!({"pem": both, "passphrase": number as f64}),
        json!({"pem": both, "passphrase": [passphrase]}),
        json!({"pem": both, "passphrase": {"text": passphrase}}),
        json!({"pem": both, "force_topic_change": passphrase}),
        json!({"pem": both, "pkcs12": file, "passphrase": passphrase}),
        json!({"pem": passphrase}),
        json!({"pem": [whole]}),
        json!({"pem": whole.replacen("CERTIFICATE", "CERTIFICAT", 1)}),
        json!({"pem": whole.replacen("MII", "MI", 2)}),
        json!({"pkcs12": whole}),
        json!({"pkcs12": password, "passphrase": password}),
        json!({"pkcs12": file, "passphrase": format!("{password}x")}),
        json!({"pkcs12": 1, "passphrase": password}),
        json!([passphrase, password]),
        json!(passphrase),
    ] {
        let (status, problem) = put(&body).await;
        assert!(status.is_client_error(), "{status} {problem}");
    }
    for text in [
        format!("{{\"passphrase\": \"{passphrase}"),
        format!("{{\"passphrase\": {passphrase}}}"),
        format!("{{\"passphrase\": \"{passphrase}\\q\"}}"),
        format!("passphrase={passphrase}"),
        whole.clone(),
    ] {
        let (status, problem) = cage
            .asks(Method::PUT, CERTIFICATES, Asked::Text(&text))
            .await;
        assert!(status.is_client_error(), "{status} {problem}");
    }
    let by_query = format!("{CERTIFICATES}?passphrase={passphrase}");
    cage.asks(Method::PUT, &by_query, Asked::Text("{}")).await;
    for body in [
        json!({"pem": both, "passphrase": passphrase}),
        json!({"pkcs12": file, "passphrase": password}),
        json!({"pem": whole}),
    ] {
        let (status, problem) = put(&body).await;
        assert_eq!(status, 200, "{problem}");
    }
}

/// The token where it does not belong.
pub(super) async fn bend_tokens(cage: &Cage) {
    let token = &cage.token;
    let devices = "/api/v1/devices";
    for headers in [
        [("Authorization", format!("Basic {token}"))],
        [("Authorization", token.clone())],
        [("Authorization", format!("Bearer {token}x"))],
        [("Authorization", format!("Bearer {}", token.to_lowercase()))],
        [("X-Token", token.clone())],
        [("Cookie", format!("token={token}"))],
    ] {
        let (status, _) = cage
            .asks(Method::GET, devices, Asked::Headers(&headers))
            .await;
        assert_eq!(status, 401);
    }
    for path in [
        format!("{devices}?token={token}"),
        format!("{devices}?limit={token}"),
        format!("{devices}?cursor={token}"),
        format!("{devices}?seen_before={token}"),
        format!("{devices}/{token}"),
        format!("{devices}/{token}/commands/{token}/result"),
        format!("/api/v1/commands/{token}"),
        format!("/api/v1/enrollment-links/{token}"),
        format!("/{token}"),
    ] {
        for method in [Method::GET, Method::DELETE, Method::POST] {
            let (status, _) = cage.asks(method, &path, Asked::Nothing).await;
            assert!(status.is_client_error(), "{path}: {status}");
        }
    }
    let allow = format!("{devices}/{token}/allow-reenroll");
    cage.asks(Method::POST, &allow, Asked::Nothing).await;
}

/// Commands that carry a PIN, a password, a profile; some that are no commands.
pub(super) async fn send_commands(cage: &Cage, device: &Device) {
    let (pin, number) = ("739158", 846_291_i64);
    cage.canary("a PIN", pin);
    cage.canary("a PIN of the wrong type", number.to_string());
    let password = cage.made("a password in a command");
    let profile = cage.made("a password in a profile");
    let payload = openssl::base64::encode_block(
        format!("<plist><dict><key>Password</key><string>{profile}</string></dict></plist>")
            .as_bytes(),
    );
    let order = |command: Value| json!({"targets": {"ids": [device.udid]}, "command": command, "reason": "lost", "wake": false});
    let raw = |plist: &str| {
        let plist = openssl::base64::encode_block(plist.as_bytes());
        json!({"targets": {"ids": [device.udid]}, "command_plist": plist, "reason": "lost", "force": true})
    };
    let lock = |pin: Value| order(json!({"request_type": "DeviceLock", "pin": pin}));
    let firmware = format!(
        "<plist version=\"1.0\"><dict><key>CommandUUID</key><string>F-1</string><key>Command</key>\
         <dict><key>RequestType</key><string>SetFirmwarePassword</string>\
         <key>NewPassword</key><string>{password}</string></dict></dict></plist>"
    );
    let post = async |body: &Value| {
        cage.asks(Method::POST, "/api/v1/commands", Asked::Json(body))
            .await
    };
    for body in [
        lock(json!(number)),
        lock(json!([pin])),
        lock(json!({"pin": pin})),
        lock(json!(format!("{pin}{pin}"))),
        lock(json!(format!("{password}"))),
        order(json!({"request_type": "DeviceLock", "pim": pin})),
        order(json!({"request_type": "InstallProfile", "payload": profile})),
        order(json!({"request_type": "InstallProfile", "payload": [payload]})),
        order(json!([pin, password])),
        order(json!(password)),
        json!({"targets": password, "command": {"request_type": "ProfileList"}}),
        json!({"targets": {"ids": password}, "command": {"request_type": "ProfileList"}}),
        json!({"targets": {"all": password}, "command": {"request_type": "ProfileList"}}),
        json!({"targets": {"ids": [device.udid]}, "command_plist": password}),
        json!({"targets": {"ids": [device.udid]}, "command_plist": [firmware]}),
        raw(&firmware.replace("</string></dict>", "</strin></dict>")),
        raw(&firmware.replace("<string>Set", "<integer>Set")),
        raw(&firmware.replace(
            "<key>NewPassword</key><string>",
            "<key>NewPassword</key><integer>",
        )),
        raw(&password),
    ] {
        let (status, problem) = post(&body).await;
        assert!(status.is_client_error(), "{body}: {status} {problem}");
    }
    let text = format!("{{\"command\": {{\"pin\": {pin}");
    cage.asks(Method::POST, "/api/v1/commands", Asked::Text(&text))
        .await;
    for body in [
        lock(json!(pin)),
        order(json!({"request_type": "InstallProfile", "payload": payload})),
        raw(&firmware),
    ] {
        let (status, queued) = post(&body).await;
        assert_eq!(status, 202, "{queued}");
        cage.hears("a command that was queued", queued.to_string().as_bytes());
    }
    answer(cage, device).await;
}

/// The device takes them, and gives a secret back.
async fn answer(cage: &Cage, device: &Device) {
    let recovery = cage.made("a recovery key in a result");
    let mut client = cage.line(Proof::Signature);
    let mut mood = Behaviour::default().mood(device);
    let session = sim::poll_session(device, Channel::Device, &mut client, &mut mood).await;
    let session = session.completed().unwrap();
    assert_eq!(session.steps.len(), 3);
    let order = json!({"targets": {"ids": [device.udid]}, "command": {"request_type": "SecurityInfo"}, "wake": false});
    let (_, queued) = cage
        .asks(Method::POST, "/api/v1/commands", Asked::Json(&order))
        .await;
    let uuid = queued["command_uuid"].as_str().unwrap();
    let mut keys = plist::Dictionary::new();
    keys.insert("PersonalRecoveryKey".into(), recovery.as_str().into());
    let report = device.report(Channel::Device, uuid, &Outcome::Acknowledged(keys), 0);
    // An unreadable one first: it closes the command, and is kept.
    let torn = report[..report.len() - 20].to_vec();
    for body in [torn, report] {
        let reply = client.report(&device.identity, body).await.unwrap();
        assert_eq!(reply.status, 200);
    }
    let path = format!("/api/v1/devices/{}/commands/{uuid}", device.udid);
    cage.asks(Method::DELETE, &path, Asked::Nothing).await;
}

/// The same by NanoMDM's API.
pub(super) async fn speak_the_dialect(cage: &Cage, device: &Device) {
    let password = cage.made("a password in a command of the dialect");
    let key = cage.made("a key that is not the dialect's");
    let pem = String::from_utf8(sim::push_certificate(TOPIC).unwrap()).unwrap();
    let line = pem.lines().rev().nth(8).unwrap().to_owned();
    cage.canary("a line of a push key given to the dialect", &line);
    let command = format!(
        "<plist version=\"1.0\"><dict><key>CommandUUID</key><string>N-1</string><key>Command</key>\
         <dict><key>RequestType</key><string>RequestMirroring</string>\
         <key>Password</key><string>{password}</string></dict></dict></plist>"
    );
    let enqueue = format!("/v1/enqueue/{}?nopush=1", device.udid);
    for (key, path, body) in [
        (NANOMDM_KEY, &*enqueue, command.clone()),
        (
            NANOMDM_KEY,
            &*enqueue,
            command.replace("<key>CommandUUID</key><string>N-1</string>", ""),
        ),
        (NANOMDM_KEY, &*enqueue, command.replace("</plist>", "")),
        (
            NANOMDM_KEY,
            &*enqueue,
            command.replace("<string>Request", "<data>Request"),
        ),
        (NANOMDM_KEY, &*enqueue, password.clone()),
        (NANOMDM_KEY, "/v1/pushcert", pem.clone()),
        (
            NANOMDM_KEY,
            "/v1/pushcert",
            pem.replace("BEGIN CERT", "BEGIN CRT"),
        ),
        (NANOMDM_KEY, "/v1/pushcert", line.clone()),
        (NANOMDM_KEY, "/migration", command.clone()),
        (&*key, &*enqueue, command.clone()),
    ] {
        let request = cage.http.put(format!("{}{path}", cage.admin));
        let request = request.basic_auth("nanomdm", Some(key)).body(body);
        cage.sends(&format!("PUT {path}"), request).await;
    }
    let topic = format!("/v1/pushcert?topic={NANOMDM_KEY}");
    let wrong = [("X-Key", NANOMDM_KEY.to_owned())];
    cage.asks(Method::GET, &topic, Asked::Headers(&wrong)).await;
}
