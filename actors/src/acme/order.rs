//! One order: from the account to the certificate (RFC 8555, section 7.4).
//!
//! The challenge is tls-alpn-01 alone: it is answered by the listener the certificate is
//! for, and needs no other port.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use rustls::pki_types::DnsName;

use super::client::Line;
use super::issued::request;
use super::kept::Kept;
use super::{AcmeError, Authority, Issued, Stage, told};
use crate::Clock;
use crate::tls::ChallengeCertificate;

/// What an order is made of.
pub(super) struct Ordering<'a> {
    pub(super) authority: &'a Authority,
    pub(super) names: &'a [DnsName<'static>],
    pub(super) kept: &'a Kept,
    pub(super) clock: &'a Clock,
    pub(super) stage: &'a dyn Stage,
}

/// Challenge certificates are shown until this is dropped.
struct Shown<'a>(&'a dyn Stage);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.clear();
    }
}

impl Ordering<'_> {
    /// Orders a certificate and waits for it.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(super) async fn obtain(&self, line: Line) -> Result<Issued, AcmeError> {
        let account = self.account(line).await?;
        let identifiers: Vec<_> = self.names.iter().map(identifier).collect();
        let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
        {
            let _shown = Shown(self.stage);
            self.prove(&mut order).await?;
        }
        let (key, csr) = request(self.names)?;
        order.finalize_csr(&csr).await?;
        let chain = order.poll_certificate(&PATIENCE).await?;
        let key = key.private_key_to_pem_pkcs8()?;
        let issued = Issued::read(&chain, &key)?;
        if !issued.is_for(self.names) {
            return Err(AcmeError::Useless("it is for other names"));
        }
        self.keep(chain, &key);
        Ok(issued)
    }

    /// The account kept for the directory, or a new one, which is then kept.
    async fn account(&self, line: Line) -> Result<Account, AcmeError> {
        let contact = match &*self.authority.contact {
            "" => String::new(),
            address if address.contains(':') => address.to_owned(),
            address => format!("mailto:{address}"),
        };
        let contacts: &[&str] = if contact.is_empty() { &[] } else { &[&contact] };
        let builder = Account::builder_with_http(Box::new(line));
        if let Some((credentials, told)) = self.kept.account() {
            let account = builder.from_credentials(credentials).await?;
            if told != contact {
                account.update_contacts(contacts).await?;
                if let Some((credentials, _)) = self.kept.account() {
                    self.kept.put_account(credentials, &contact)?;
                }
            }
            return Ok(account);
        }
        let new = NewAccount {
            contact: contacts,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let directory = self.authority.directory.clone();
        let (account, credentials) = builder.create(&new, directory, None).await?;
        tracing::info!(account = account.id(), "account made at the ACME CA");
        self.kept.put_account(credentials, &contact)?;
        Ok(account)
    }

    /// Shows the CA that the names are ours, as far as it does not know already.
    async fn prove(&self, order: &mut Order) -> Result<(), AcmeError> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let asked = authorization.identifier().to_string();
            let name = self.names.iter().find(|name| name.as_ref() == asked);
            let name = name.ok_or_else(|| AcmeError::Stranger(asked.clone()))?;
            let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
            let mut challenge = challenge.ok_or(AcmeError::NotOffered(asked))?;
            let answer = challenge.key_authorization();
            let now = self.clock.now();
            let certificate = ChallengeCertificate::of(name, answer.as_str(), now)?;
            self.stage.show(name, &certificate)?;
            challenge.set_ready().await?;
        }
        match order.state().status {
            OrderStatus::Pending => {}
            OrderStatus::Invalid => return Err(refusal(order).await.unwrap_or(AcmeError::Refused)),
            _ => return Ok(()),
        }
        match order.poll_ready(&PATIENCE).await {
            Ok(OrderStatus::Ready) => Ok(()),
            Ok(_) => Err(refusal(order).await.unwrap_or(AcmeError::Refused)),
            Err(error) => Err(match refusal(order).await {
                Some(refusal) => refusal,
                None => error.into(),
            }),
        }
    }

    /// What cannot be kept is served all the same: the CA does not give it twice.
    fn keep(&self, chain: String, key: &[u8]) {
        let key = String::from_utf8_lossy(key).into_owned();
        if let Err(error) = self.kept.put_certificate(chain, key) {
            tracing::error!(%error, "the certificate of the ACME CA cannot be kept for the next start");
        }
    }
}

/// Why an order came to nothing: the order says that it did, its challenges say why.
async fn refusal(order: &mut Order) -> Option<AcmeError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.ok()?;
        let state = authorization.refresh().await.ok()?;
        let name = state.identifier().to_string();
        let error = state.challenges.iter().find_map(|one| one.error.as_ref());
        if let Some(error) = error {
            return Some(AcmeError::Unproved(name, told(error)));
        }
    }
    None
}

fn identifier(name: &DnsName<'static>) -> Identifier {
    Identifier::Dns(name.as_ref().to_owned())
}

/// The CA looks from several places, and may be busy.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(180));
