//! Many devices in one process: enrolls them, lets a push wake the device it
//! is for, and keeps an exact account of each. The stand-in for a school's
//! iPads in tests and in `reveille demo`.

mod accounts;
mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;

pub use accounts::{Accounts, Totals};
pub use plan::FleetPlan;

use crate::apns::{FakeApns, Push};
use crate::behaviour::Mood;
use crate::ca::DeviceCa;
use crate::client::Client;
use crate::command::Status;
use crate::device::{Channel, Device};
use crate::dice::Dice;
use crate::error::SimError;
use crate::ledger::Ledger;
use crate::parallel;
use crate::session::{Session, enroll, poll_session};
use crate::target::Target;
use crate::watched::Watched;

/// A fleet. Dropping it stops it.
pub struct Fleet {
    inner: Arc<Inner>,
    listeners: std::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl Fleet {
    /// Makes the devices; blocks for about a millisecond each and core.
    pub fn new(ca: &DeviceCa, target: Target, plan: FleetPlan) -> Result<Self, SimError> {
        let devices = parallel::make_all("making devices", plan.devices, |n| {
            let mut dice = Dice::named(plan.behaviour.seed, &format!("device {n}"));
            let device = Device::seeded(ca, &plan.topic, plan.kind, &mut dice)?;
            Ok(match plan.users {
                true => device.with_user(&mut dice),
                false => device,
            })
        })?;
        Ok(Self::of(devices, target, plan))
    }

    /// A fleet of devices made elsewhere.
    pub fn of(devices: Vec<Device>, target: Target, plan: FleetPlan) -> Self {
        let target = Arc::new(target);
        let mut by_token = HashMap::new();
        for (n, device) in devices.iter().enumerate() {
            for channel in device.channels() {
                if let Some(push) = device.push_of(*channel) {
                    by_token.insert(push.token_hex(), (n, *channel));
                }
            }
        }
        let accounts = Accounts::of(devices.len());
        let members = devices
            .into_iter()
            .map(|device| Member {
                voice: Mutex::new(Voice {
                    client: Client::new(target.clone()),
                    mood: plan.behaviour.mood(&device),
                }),
                wanted: [AtomicBool::new(false), AtomicBool::new(false)],
                device,
            })
            .collect();
        Self {
            inner: Arc::new(Inner {
                members,
                by_token,
                turns: Semaphore::new(plan.in_flight.max(1)),
                accounts: Watched::new(accounts),
                stopped: AtomicBool::new(false),
                plan,
            }),
            listeners: std::sync::Mutex::default(),
        }
    }

    /// Enrolls every device; the first failure ends it.
    pub async fn enroll(&self) -> Result<(), SimError> {
        let bar = parallel::progress("enrolling", self.inner.members.len());
        stream::iter(0..self.inner.members.len())
            .map(|n| {
                let bar = bar.clone();
                async move {
                    self.enroll_one(n).await?;
                    bar.inc(1);
                    Ok::<(), SimError>(())
                }
            })
            .buffer_unordered(self.inner.plan.in_flight.max(1))
            .try_collect::<()>()
            .await?;
        bar.finish_and_clear();
        Ok(())
    }

    /// Enrolls one device, or enrolls it again.
    pub async fn enroll_one(&self, n: usize) -> Result<(), SimError> {
        let member = &self.inner.members[n];
        let mut voice = member.voice.lock().await;
        enroll(&member.device, &mut voice.client).await?;
        if !self.inner.plan.keep_connections {
            voice.client.disconnect();
        }
        self.inner.accounts.change(|accounts| accounts.enrolled(n));
        Ok(())
    }

    /// From now on, a push accepted by `apns` makes its device poll.
    pub fn attach(&self, apns: &FakeApns) {
        let inner = self.inner.clone();
        let mut pushes = apns.pushes();
        let listener = tokio::spawn(async move {
            while let Some(push) = pushes.recv().await {
                inner.pushed(&push);
            }
        });
        self.listeners
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(listener);
    }

    /// Makes one channel poll now and tells what happened.
    pub async fn poll(&self, n: usize, channel: Channel) -> Session {
        self.inner.clone().poll(n, channel).await
    }

    /// Makes every channel poll, as if it had been pushed; silent and erased
    /// devices do not.
    pub fn wake_all(&self) {
        for (n, member) in self.inner.members.iter().enumerate() {
            for channel in member.device.channels() {
                self.inner.wake(n, *channel, Duration::ZERO);
            }
        }
    }

    /// One device.
    pub fn device(&self, n: usize) -> &Device {
        &self.inner.members[n].device
    }

    /// All devices.
    pub fn devices(&self) -> impl ExactSizeIterator<Item = &Device> {
        self.inner.members.iter().map(|member| &member.device)
    }

    /// The account of one channel so far.
    pub fn ledger(&self, n: usize, channel: Channel) -> Ledger {
        self.accounts(|accounts| accounts.ledger(n, channel).clone())
    }

    /// Looks at all accounts.
    pub fn accounts<R>(&self, look: impl FnOnce(&Accounts) -> R) -> R {
        self.inner.accounts.read(look)
    }

    /// Waits until `condition` holds, at most `deadline`. It is asked after
    /// each session, so it should be cheap: use the totals of `Accounts`.
    pub async fn wait_until(
        &self,
        what: &str,
        deadline: Duration,
        condition: impl FnMut(&Accounts) -> bool,
    ) -> Result<(), SimError> {
        self.inner.accounts.until(what, deadline, condition).await
    }

    /// Stops listening for pushes; sessions under way end by themselves.
    pub fn shutdown(&self) {
        self.inner.stopped.store(true, Ordering::Relaxed);
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        listeners.drain(..).for_each(|listener| listener.abort());
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.shutdown();
    }
}

struct Inner {
    members: Vec<Member>,
    by_token: HashMap<String, (usize, Channel)>,
    turns: Semaphore,
    accounts: Watched<Accounts>,
    stopped: AtomicBool,
    plan: FleetPlan,
}

struct Member {
    device: Device,
    voice: Mutex<Voice>,
    /// A poll is due and not begun, per channel: pushes until then are one.
    wanted: [AtomicBool; 2],
}

struct Voice {
    client: Client,
    mood: Mood,
}

impl Inner {
    fn pushed(self: &Arc<Self>, push: &Push) {
        let Some(&(n, channel)) = self.by_token.get(&push.token_hex) else {
            self.accounts.change(Accounts::stray_push);
            return;
        };
        let device = &self.members[n].device;
        let magic = device.push_of(channel).map(|push| &push.magic);
        if magic != Some(&push.magic) || device.topic != push.topic {
            self.accounts
                .change(|accounts| accounts.wrong_push(n, channel));
            return;
        }
        self.wake(n, channel, Duration::ZERO);
    }

    fn wake(self: &Arc<Self>, n: usize, channel: Channel, after: Duration) {
        let wanted = &self.members[n].wanted[channel as usize];
        if self.stopped.load(Ordering::Relaxed)
            || self.accounts.read(|accounts| accounts.is_erased(n))
            || wanted.swap(true, Ordering::AcqRel)
        {
            return;
        }
        self.accounts.change(Accounts::begin);
        let inner = self.clone();
        tokio::spawn(async move {
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            // Never closed, so never refused.
            let turn = inner.turns.acquire().await;
            let silent = inner.members[n].voice.lock().await.mood.silent;
            if silent || inner.stopped.load(Ordering::Relaxed) {
                inner.members[n].wanted[channel as usize].store(false, Ordering::Release);
            } else {
                let session = inner.clone().poll(n, channel).await;
                drop(turn);
                inner.come_back(n, channel, &session);
            }
            inner.accounts.change(Accounts::end);
        });
    }

    async fn poll(self: Arc<Self>, n: usize, channel: Channel) -> Session {
        let member = &self.members[n];
        let mut voice = member.voice.lock().await;
        // Cleared before the poll: a push from now on asks for another one.
        member.wanted[channel as usize].store(false, Ordering::Release);
        let Voice { client, mood } = &mut *voice;
        let session = poll_session(&member.device, channel, client, mood).await;
        if !self.plan.keep_connections {
            client.disconnect();
        }
        self.accounts
            .change(|accounts| accounts.absorb(n, channel, &session));
        session
    }

    /// A device polls again by itself after NotNow, and when it failed.
    fn come_back(self: &Arc<Self>, n: usize, channel: Channel, session: &Session) {
        let Some(after) = self.plan.come_back_after else {
            return;
        };
        if session.failure.is_some() || session.last_status() == Some(Status::NotNow) {
            self.wake(n, channel, after);
        }
    }
}
