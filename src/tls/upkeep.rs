//! Who looks after the listeners' certificates while the server runs.

use std::sync::Arc;

use actors::expiry::Expiries;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::acme::Renewal;
use super::keeper::{self, Keeper};
use super::served::Served;

/// Who looks after a listener's certificate.
#[derive(Debug)]
pub(crate) enum Upkeep {
    /// We renew our own, or the administrator renews files.
    Keeper(Box<Keeper>),
    /// A public CA issues it.
    Renewal(Box<Renewal>),
}

impl Upkeep {
    pub(super) fn served(&self) -> Arc<Served> {
        match self {
            Self::Keeper(keeper) => keeper.served(),
            Self::Renewal(renewal) => renewal.served(),
        }
    }

    pub(super) fn root_pem(&self) -> Option<Vec<u8>> {
        match self {
            Self::Keeper(keeper) => keeper.root_pem(),
            Self::Renewal(renewal) => renewal.root_pem(),
        }
    }
}

/// Looks after all certificates until the tasks are aborted, and has their ends watched.
/// `reload` says that files changed, or that what hindered a CA is gone.
pub(crate) fn keep(
    all: impl Iterator<Item = Upkeep>,
    expiries: &Expiries,
    reload: &watch::Sender<()>,
) -> Vec<JoinHandle<()>> {
    let mut keepers = Vec::new();
    let mut tasks = Vec::new();
    for upkeep in all {
        match upkeep {
            Upkeep::Keeper(keeper) => keepers.push(*keeper),
            Upkeep::Renewal(renewal) => {
                let task = renewal.keep(expiries.clone(), reload.subscribe());
                tasks.push(actix_web::rt::spawn(task));
            }
        }
    }
    let task = keeper::keep(keepers, expiries.clone(), reload.subscribe());
    tasks.push(actix_web::rt::spawn(task));
    tasks
}

/// Waits until the next reload is asked for.
pub(super) async fn asked(reload: &mut watch::Receiver<()>) {
    if reload.changed().await.is_err() {
        std::future::pending().await
    }
}
