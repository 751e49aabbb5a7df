//! Coming as a device under an identity nobody has seen before.

use reqwest::Method;
use sim::{Channel, Device, Proof};

use super::{assert_refused, enrolled_by_us, forged, issued_by_us, known, line, rsa};
use crate::house::{House, id_of};

/// Whose CA an identity nobody has seen before is of.
#[derive(Clone, Copy, Debug)]
enum Of {
    /// Ours.
    Us,
    /// A further one that is trusted.
    Others,
    /// None that is: it has the names of ours and another key.
    Pretenders,
}

#[actix_web::test]
async fn a_device_is_taken_over_only_as_the_rules_of_re_enrollment_say() {
    let house = House::start().await;
    let key = rsa();
    let pretender = rsa();
    // (what became of the victim, whose the new identity is, whether it may come)
    let rules = [
        ("enrolled", Of::Us, false),
        ("enrolled", Of::Others, false),
        ("enrolled", Of::Pretenders, false),
        ("checked out", Of::Us, true),
        ("checked out", Of::Others, false),
        ("checked out", Of::Pretenders, false),
        ("allowed to", Of::Us, true),
        ("allowed to", Of::Others, true),
        ("allowed to", Of::Pretenders, false),
    ];
    for (seed, (state, of, may)) in rules.into_iter().enumerate() {
        let what = format!("{state}, an identity of {of:?}");
        let (victim, waiting) = enrolled_by_us(&house, &key, 10 + seed as u64).await;
        let id = id_of(&victim);
        let mut client = line(&house, Proof::Header);
        match state {
            "checked out" => {
                let gone = client.check_in(&victim.identity, victim.check_out()).await;
                assert_eq!(gone.unwrap().status, 200);
            }
            "allowed to" => {
                let path = format!("/api/v1/devices/{id}/allow-reenroll");
                let allowed = house.admin(Method::POST, &path).send().await.unwrap();
                assert_eq!(allowed.status(), 204);
            }
            _ => {}
        }
        let before = known(&house, &id).await;
        let identity = match of {
            Of::Us => issued_by_us(&house, &rsa()).await,
            Of::Others => house.ca.issue("never seen").unwrap(),
            Of::Pretenders => forged(&victim.identity, &key, &pretender, [-1, 300]),
        };
        let taker = Device {
            identity,
            ..victim.clone()
        };
        let asked = client
            .check_in(&taker.identity, taker.authenticate())
            .await
            .unwrap();
        if !may {
            assert_refused(&asked, &[403], &what);
            let pushed = client
                .check_in(&taker.identity, taker.token_update())
                .await
                .unwrap();
            assert_refused(&pushed, &[403], &what);
            assert_eq!(known(&house, &id).await, before, "{what}");
            continue;
        }
        assert_eq!(asked.status, 200, "{what}");
        // Not enrolled yet: it has nothing, and has taken nothing.
        let polled = client
            .report(&taker.identity, taker.idle(Channel::Device))
            .await
            .unwrap();
        assert_eq!(
            (polled.status.as_u16(), polled.body.len()),
            (200, 0),
            "{what}"
        );
        let asked = client
            .check_in(&taker.identity, taker.get_bootstrap_token())
            .await
            .unwrap();
        assert_refused(&asked, &[403], &what);
        assert_eq!(known(&house, &id).await.commands, before.commands, "{what}");
        // Enrolled, it finds nothing of who was here before.
        let pushed = client
            .check_in(&taker.identity, taker.token_update())
            .await
            .unwrap();
        assert_eq!(pushed.status, 200, "{what}");
        assert_eq!(house.state(&id, &waiting).await, "cancelled", "{what}");
        let token = client
            .check_in(&taker.identity, taker.get_bootstrap_token())
            .await
            .unwrap();
        let token = schema::xml::parse(&token.body).unwrap();
        assert!(token.get("BootstrapToken").is_none(), "{what}");
        let gone = client
            .report(&victim.identity, victim.idle(Channel::Device))
            .await
            .unwrap();
        assert_refused(&gone, &[403], &what);
    }
    // Nor does a pretender come as whom nobody has heard of.
    let identity = forged(
        &issued_by_us(&house, &key).await,
        &key,
        &pretender,
        [-1, 300],
    );
    let (nobody, mut client) = house.new_device(Proof::Header);
    let asked = client.check_in(&identity, nobody.authenticate()).await;
    assert_refused(
        &asked.unwrap(),
        &[403],
        "a new device under a pretender's identity",
    );
}
