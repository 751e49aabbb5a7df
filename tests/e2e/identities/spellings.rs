//! Every way to write another device's id.

use sim::{Device, Dice, Kind, Proof};

use super::{Door, known, line, plist, say};
use crate::house::{House, TOPIC, id_of};

/// Ways to write another device's id, and whether a check-in with it can be read at all.
fn spellings(own: &str, victim: &str) -> Vec<(String, String)> {
    let udid = |text: &str| format!("<key>UDID</key><string>{text}</string>");
    let entity: String = victim.bytes().map(|byte| format!("&#x{byte:x};")).collect();
    let cyrillic = victim.replacen(['A', 'B', 'C', 'E'], "\u{410}", 1);
    let wide: String = victim
        .chars()
        .map(|c| {
            if c.is_ascii_digit() {
                char::from_u32(c as u32 + 0xfee0).unwrap()
            } else {
                c
            }
        })
        .collect();
    let mut spellings = vec![
        ("lower case", udid(&victim.to_lowercase())),
        ("upper case", udid(&victim.to_uppercase())),
        ("no hyphens", udid(&victim.replace('-', ""))),
        ("other hyphens", udid(&victim.replace('-', "\u{2010}"))),
        ("a space before", udid(&format!(" {victim}"))),
        ("a space behind", udid(&format!("{victim} "))),
        ("a newline behind", udid(&format!("{victim}\n"))),
        ("a newline by entity", udid(&format!("{victim}&#10;"))),
        ("a NUL behind", udid(&format!("{victim}\0"))),
        ("a NUL by entity", udid(&format!("{victim}&#0;"))),
        ("a no-break space", udid(&format!("{victim}\u{a0}"))),
        ("a byte order mark", udid(&format!("\u{feff}{victim}"))),
        ("nothing wide", udid(&format!("{victim}\u{200b}"))),
        ("each letter an entity", udid(&entity)),
        ("a letter of another script", udid(&cyrillic)),
        ("wide digits", udid(&wide)),
        ("own, then the victim's", udid(own) + &udid(victim)),
        ("the victim's, then own", udid(victim) + &udid(own)),
        (
            "own in a dictionary",
            format!("<key>x</key><dict>{}</dict>{}", udid(own), udid(victim)),
        ),
        (
            "the victim's in a dictionary",
            format!("{}<key>x</key><dict>{}</dict>", udid(own), udid(victim)),
        ),
        (
            "the key by entity",
            format!("{}<key>UDI&#68;</key><string>{victim}</string>", udid(own)),
        ),
        (
            "an EnrollmentID",
            format!("<key>EnrollmentID</key><string>{victim}</string>"),
        ),
        (
            "both ids",
            format!(
                "{}<key>EnrollmentID</key><string>{victim}</string>",
                udid(own)
            ),
        ),
        (
            "a user of it",
            format!("{}<key>UserID</key><string>{own}</string>", udid(victim)),
        ),
        (
            "in a UserID",
            format!("{}<key>UserID</key><string>{victim}</string>", udid(own)),
        ),
        ("with a colon", udid(&format!("{victim}:{own}"))),
        (
            "in CDATA",
            format!("<key>UDID</key><string><![CDATA[{victim}]]></string>"),
        ),
        (
            "around a comment",
            udid(&format!("{}<!-- -->{}", &victim[..5], &victim[5..])),
        ),
        ("as data", format!("<key>UDID</key><data>{victim}</data>")),
    ];
    spellings.push(("as it is", udid(victim)));
    let spellings = spellings.into_iter();
    spellings
        .map(|(how, keys)| (how.to_owned(), keys))
        .collect()
}

/// The same messages with id keys as text, for ids no device has.
fn messages_with(ids: &str, uuid: &str) -> Vec<(&'static str, Door, Vec<u8>)> {
    let topic = format!("<key>Topic</key><string>{TOPIC}</string>");
    let push = "<key>Token</key><data>AQID</data><key>PushMagic</key><string>m</string>";
    let token = "<key>BootstrapToken</key><data>AQID</data>";
    let endpoint = "<key>Endpoint</key><string>tokens</string>";
    let check_in = |what: &'static str, more: &str| {
        let kind = format!("<key>MessageType</key><string>{what}</string>");
        (what, Door::CheckIn, plist(&format!("{kind}{ids}{more}")))
    };
    let report = |status: &'static str| {
        let uuid = format!("<key>CommandUUID</key><string>{uuid}</string>");
        let status_key = format!("<key>Status</key><string>{status}</string>");
        (
            status,
            Door::Connect,
            plist(&format!("{ids}{status_key}{uuid}")),
        )
    };
    vec![
        check_in("Authenticate", &topic),
        check_in("TokenUpdate", &format!("{topic}{push}")),
        check_in("CheckOut", &topic),
        check_in("SetBootstrapToken", token),
        check_in("GetBootstrapToken", ""),
        check_in("UserAuthenticate", ""),
        check_in("DeclarativeManagement", endpoint),
        report("Acknowledged"),
        report("Error"),
        report("NotNow"),
        report("Garbage"),
        (
            "Idle",
            Door::Connect,
            plist(&format!("{ids}<key>Status</key><string>Idle</string>")),
        ),
    ]
}

#[actix_web::test]
async fn no_spelling_of_an_id_makes_one_device_another() {
    let house = House::start().await;
    let dice = &mut Dice::new(3);
    let seeded = |dice: &mut Dice| Device::seeded(&house.ca, TOPIC, Kind::Mac, dice).unwrap();
    let (victim, own) = (seeded(dice).with_user(dice), seeded(dice));
    let mut client = line(&house, Proof::Header);
    for device in [&victim, &own] {
        sim::enroll(device, &mut client).await.unwrap();
    }
    let token = victim.set_bootstrap_token(b"of the victim alone");
    client.check_in(&victim.identity, token).await.unwrap();
    let waiting = house.ask_information(&id_of(&victim)).await;
    let before = known(&house, &id_of(&victim)).await;
    for (how, ids) in spellings(&own.udid, &victim.udid) {
        for (what, door, body) in messages_with(&ids, &waiting) {
            // One that is bound elsewhere, and one that may enroll as whoever has no name yet.
            for identity in [&own.identity, &house.ca.issue("anyone").unwrap()] {
                let reply = say(&mut client, identity, door, body.clone()).await;
                let said = String::from_utf8_lossy(&reply.body);
                let what = format!("{what}, {how}: {} {said}", reply.status);
                assert!(
                    [200, 400, 403, 410].contains(&reply.status.as_u16()),
                    "{what}"
                );
                assert!(
                    !said.contains(&waiting) && !said.contains("unrecognized"),
                    "{what}"
                );
                let token = openssl::base64::encode_block(b"of the victim alone");
                assert!(!said.contains(&token), "{what}");
            }
        }
        assert_eq!(known(&house, &id_of(&victim)).await, before, "{how}");
    }
}
