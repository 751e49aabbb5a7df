//! Coming as a device under an identity nobody has seen before.

use reqwest::Method;
use sim::{Channel, Device, Proof};

use super::{assert_refused, enrolled_by_us, issued_by_us, known, line, rsa};
use crate::house::{House, id_of};

#[actix_web::test]
async fn a_device_is_taken_over_only_as_the_rules_of_re_enrollment_say() {
    let house = House::start().await;
    let key = rsa();
    // (what became of the victim, a new identity of whose CA, whether it may come)
    let rules = [
        ("enrolled", true, false),
        ("enrolled", false, false),
        ("checked out", true, true),
        ("checked out", false, false),
        ("allowed to", true, true),
        ("allowed to", false, true),
    ];
    for (seed, (state, ours, may)) in rules.into_iter().enumerate() {
        let what = format!("{state}, under our CA: {ours}");
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
        let identity = match ours {
            true => issued_by_us(&house, &rsa()).await,
            false => house.ca.issue("never seen").unwrap(),
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
}
