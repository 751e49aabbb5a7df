//! What a device said before, said again by a thief who has it with its signature.

use reqwest::Method;
use sim::{Channel, Device, Dice, Outcome, Proof};

use super::{Door, Known, known, say};
use crate::house::{House, id_of};

/// A message with its proof, as a thief has it.
struct Stolen {
    door: Door,
    body: Vec<u8>,
    signature: String,
}

impl Stolen {
    fn of(device: &Device, door: Door, body: Vec<u8>) -> Self {
        let signature = device.identity.sign(&body).unwrap();
        Self {
            door,
            body,
            signature,
        }
    }

    async fn says(&self, house: &House) -> u16 {
        let (path, kind) = match self.door {
            Door::CheckIn => ("/mdm/checkin", "application/x-apple-aspen-mdm-checkin"),
            Door::Connect => ("/mdm/connect", "application/x-apple-aspen-mdm"),
        };
        let request = house.device(Method::PUT, path).header("Content-Type", kind);
        let request = request.header("Mdm-Signature", &self.signature);
        let sent = request.body(self.body.clone()).send().await.unwrap();
        sent.status().as_u16()
    }
}

#[actix_web::test]
async fn what_was_said_before_changes_nothing_when_a_thief_says_it_again() {
    let house = House::start().await;
    let (mut device, mut client) = house.enrolled(Proof::Signature).await;
    let id = id_of(&device);
    let mut stolen = Vec::new();
    let mut says = async |device: &Device, door, body: Vec<u8>| {
        stolen.push(Stolen::of(device, door, body.clone()));
        let reply = say(&mut client, &device.identity, door, body).await;
        assert_eq!(reply.status, 200);
    };
    // device: another push token, a bootstrap token, another; three results.
    says(&device, Door::CheckIn, device.token_update()).await;
    says(&device, Door::CheckIn, device.set_bootstrap_token(b"first")).await;
    says(&device, Door::CheckIn, device.set_bootstrap_token(b"")).await;
    for outcome in [
        Outcome::Acknowledged(plist::Dictionary::new()),
        Outcome::Error(vec![]),
        Outcome::CommandFormatError(vec![]),
    ] {
        let uuid = house.ask_information(&id).await;
        let report = device.report(Channel::Device, &uuid, &outcome, 0);
        says(&device, Door::Connect, report).await;
    }
    // It leaves and comes back with a name and a token it did not have before.
    says(&device, Door::CheckIn, device.check_out()).await;
    device.name = "after it came back".into();
    device.push = sim::PushAddress::random(&mut Dice::new(4));
    says(&device, Door::CheckIn, device.authenticate()).await;
    says(&device, Door::CheckIn, device.token_update()).await;
    device.push = sim::PushAddress::random(&mut Dice::new(5));
    says(&device, Door::CheckIn, device.token_update()).await;
    says(&device, Door::CheckIn, device.set_bootstrap_token(b"last")).await;
    let open = house.ask_information(&id).await;
    let before = but_for_hand_outs(known(&house, &id).await, &open);
    for _ in 0..2 {
        for message in &stolen {
            assert_eq!(
                message.says(&house).await,
                200,
                "a copy is told what a resend is told"
            );
            let after = but_for_hand_outs(known(&house, &id).await, &open);
            assert_eq!(after, before);
        }
    }
    // With another body the signature is worth nothing.
    for message in &mut stolen {
        message.body.push(b' ');
        assert_eq!(message.says(&house).await, 403);
    }
    let after = but_for_hand_outs(known(&house, &id).await, &open);
    assert_eq!(after, before);
    let mine = device.idle(Channel::Device);
    let mine = client.report(&device.identity, mine).await.unwrap();
    let mine = sim::Command::parse(&mine.body).unwrap().unwrap();
    assert_eq!(mine.uuid, open, "the device has its command all the same");
}

/// A report that comes again is a resend whose answer was lost, and gets the command that
/// waits: that this one was handed out is no change of what the device is to do.
fn but_for_hand_outs(mut known: Known, open: &str) -> Known {
    let items = known.commands["items"].as_array_mut().unwrap();
    let item = items.iter_mut().find(|item| item["command_uuid"] == open);
    let item = item.unwrap().as_object_mut().unwrap();
    let state = item.remove("state").unwrap();
    assert!(state == "released" || state == "sent", "{state}");
    item.remove("attempts");
    item.remove("stuck");
    item.remove("sent_at");
    known
}
