//! Who may do what: keys, roles, and the one table of which route asks for which.
//!
//! | room | what it owns |
//! |---|---|
//! | this file | the keys that are in force, and [`Access`]: what the one who asks may do |
//! | [`table`] | every route: the least role, what it is about, and what the audit log calls it |
//! | [`guard`] | each request is held against the table before anything else is done |
//! | [`origin`] | other web sites |
//! | [`failures`] | how often an address may show keys that are none |
//! | [`credentials`] | the key of a request, wherever it stands |
//! | [`audit`] | what is written about a command |
//!
//! While there is no API key, everything is open: `start` listens on loopback addresses only then. The first API key closes
//! it, for good. Absent on purpose: deciding which keys may be made (the core's), and storing them (the store's).

pub(crate) mod audit;
pub(crate) mod credentials;
mod failures;
pub(crate) mod guard;
mod origin;
pub(crate) mod table;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use dormouse_core::key::{Key, KeyId, Kind, Presented, Role};
use dormouse_core::{FunctionName, key};
use dormouse_store::Store;
use dormouse_store::key::Keys as Stored;
use http::request::Parts;

use crate::clock::Clock;
use crate::problem::Problem;
use failures::Failures;

/// Where other nodes may make and revoke keys, nothing is answered by keys that were read longer ago than this.
const AGE_MAX: Duration = Duration::from_millis(500);
/// So long a database may take to say which keys there are.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The keys in force.
pub(crate) struct Keys {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    current: RwLock<Arc<Current>>,
    /// Held by the one who reads them anew.
    reading: tokio::sync::Mutex<()>,
    /// They were changed here and have not been read since.
    stale: AtomicBool,
    failures: Failures,
}

/// The keys as they were at a time.
struct Current {
    generation: i64,
    /// Keys are asked for.
    closed: bool,
    /// Those that are not revoked.
    keys: HashMap<KeyId, Arc<Key>>,
    read_at: Instant,
}

impl Current {
    fn of(stored: Stored, read_at: Instant) -> Current {
        Current {
            generation: stored.generation,
            closed: key::is_closed(&stored.keys),
            keys: stored
                .keys
                .into_iter()
                .filter(|key| key.revoked_at.is_none())
                .map(|key| (key.id, Arc::new(key)))
                .collect(),
            read_at,
        }
    }
}

impl Keys {
    /// Reads the keys.
    ///
    /// # Errors
    /// The store's trouble.
    pub(crate) async fn open(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> dormouse_store::Result<Keys> {
        let read_at = Instant::now();
        let stored = store.keys(None).await?.unwrap_or_default();
        Ok(Keys {
            store,
            clock,
            current: RwLock::new(Arc::new(Current::of(stored, read_at))),
            reading: tokio::sync::Mutex::default(),
            stale: AtomicBool::new(false),
            failures: Failures::default(),
        })
    }

    fn held(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether keys are asked for, as far as this node knows.
    pub(crate) fn closed(&self) -> bool {
        self.held().closed
    }

    /// The keys, read anew where they may have changed elsewhere.
    async fn current(&self) -> Result<Arc<Current>, Problem> {
        let held = self.held();
        if self.fits(&held) {
            return Ok(held);
        }
        let _turn = self.reading.lock().await;
        let held = self.held();
        if self.fits(&held) {
            return Ok(held);
        }
        self.read(&held).await
    }

    fn fits(&self, held: &Current) -> bool {
        // One process alone knows of every change there is.
        let young = self.store.lease().is_none() || held.read_at.elapsed() < AGE_MAX;
        young && !self.stale.load(Ordering::Acquire)
    }

    /// Reads the keys. The turn is held.
    async fn read(&self, held: &Current) -> Result<Arc<Current>, Problem> {
        let read_at = Instant::now();
        let read = tokio::time::timeout(READ_TIMEOUT, self.store.keys(Some(held.generation))).await;
        let fresh = match read {
            Ok(Ok(Some(stored))) => Current::of(stored, read_at),
            Ok(Ok(None)) => Current {
                generation: held.generation,
                closed: held.closed,
                keys: held.keys.clone(),
                read_at,
            },
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => {
                let message = "the database does not say which keys there are";
                return Err(Problem {
                    retry_after: Some(2),
                    ..Problem::new(503, "store-unavailable", message)
                });
            }
        };
        let fresh = Arc::new(fresh);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&fresh);
        self.stale.store(false, Ordering::Release);
        Ok(fresh)
    }

    /// After a change that was made here: from now on it is in force.
    pub(crate) async fn changed(&self) {
        // Whoever reads at this moment may have begun before the change.
        let _turn = self.reading.lock().await;
        self.stale.store(true, Ordering::Release);
        if let Err(problem) = self.read(&self.held()).await {
            // Nothing is answered by the old ones: the next request reads them, or is refused.
            tracing::debug!(%problem, "the keys cannot be read");
        }
    }

    /// Who asks, by the key that was shown.
    ///
    /// # Errors
    /// `unauthorized`, `too-many-failures`; the store's trouble.
    pub(crate) async fn access(&self, shown: Option<&str>, from: Option<IpAddr>) -> Result<Access, Problem> {
        let current = self.current().await?;
        self.judge(&current, shown, from)
    }

    /// As [`Keys::access`], by the keys that were known last when the store does not answer.
    pub(crate) async fn access_or_known(
        &self,
        shown: Option<&str>,
        from: Option<IpAddr>,
    ) -> Result<Access, Problem> {
        let current = self.current().await.unwrap_or_else(|_| self.held());
        self.judge(&current, shown, from)
    }

    fn judge(&self, current: &Current, shown: Option<&str>, from: Option<IpAddr>) -> Result<Access, Problem> {
        if !current.closed {
            return Ok(Access(Caller::Open));
        }
        let Some(shown) = shown else {
            return Err(unauthorized("this server asks for a key"));
        };
        let presented = Presented::parse(shown);
        let found = presented.as_ref().and_then(|presented| {
            let key = current.keys.get(&presented.id)?;
            presented.is(key).then_some(key)
        });
        match found {
            Some(key) if key.lives(self.clock.now()) => Ok(Access(Caller::Key(Arc::clone(key)))),
            // Whoever has the secret may know that it was right.
            Some(_) => Err(unauthorized("the key has expired")),
            None => Err(self.failed(presented.map(|presented| presented.id), from)),
        }
    }

    /// A key that is none. What is shown of it is the id, if it has the form of a key: never the key.
    fn failed(&self, id: Option<KeyId>, from: Option<IpAddr>) -> Problem {
        let id = id.map_or_else(|| "none".to_owned(), |id| id.to_string());
        match self.failures.count(from, Instant::now()) {
            Ok(()) => {
                tracing::warn!(
                    from = from.map(tracing::field::display),
                    key = id,
                    "a key was refused"
                );
                unauthorized("the key is not known, or it was revoked")
            }
            Err(seconds) => Problem {
                retry_after: Some(seconds),
                ..Problem::new(
                    429,
                    "too-many-failures",
                    "too many keys that are none came from this address",
                )
                .help("requests with a key that is one are answered all the same")
            },
        }
    }

    /// Refuses an access that is one no longer, after something was waited for.
    ///
    /// # Errors
    /// `unauthorized`; the store's trouble.
    pub(crate) async fn still(&self, access: &Access) -> Result<(), Problem> {
        let current = self.current().await?;
        match self.lives(&current, access) {
            true => Ok(()),
            false => Err(unauthorized("the key was revoked, or has expired")),
        }
    }

    fn lives(&self, current: &Current, access: &Access) -> bool {
        match &access.0 {
            Caller::Open => !current.closed,
            Caller::Key(key) => current.keys.contains_key(&key.id) && key.lives(self.clock.now()),
        }
    }

    /// Returns when an access is one no longer: its key was revoked, or has expired. Open ones end when the server closes.
    pub(crate) async fn over(&self, access: &Access) {
        loop {
            tokio::time::sleep(AGE_MAX).await;
            // While the store does not answer, nobody can have revoked anything.
            let current = self.current().await.unwrap_or_else(|_| self.held());
            if !self.lives(&current, access) {
                return;
            }
        }
    }
}

/// 401.
pub(crate) fn unauthorized(why: &str) -> Problem {
    Problem::new(401, "unauthorized", why)
        .help("send the key as Authorization: Bearer KEY; with the command, as DORMOUSE_KEY or --key")
}

/// 403, with what is missing.
pub(crate) fn forbidden(what: String) -> Problem {
    Problem::new(403, "forbidden", what).help("an admin makes keys: dormouse keys create")
}

/// What the one who asks may do. Every handler of a route that is not open gets one.
#[derive(Clone, Debug)]
pub(crate) struct Access(Caller);

#[derive(Clone, Debug)]
enum Caller {
    Open,
    Key(Arc<Key>),
}

impl Access {
    fn key(&self) -> Option<&Key> {
        match &self.0 {
            Caller::Open => None,
            Caller::Key(key) => Some(key),
        }
    }

    /// The key's id, if one was shown.
    pub(crate) fn id(&self) -> Option<KeyId> {
        self.key().map(|key| key.id)
    }

    /// Who it is, for records: the key's name.
    pub(crate) fn name(&self) -> &str {
        self.key().map_or("open", |key| &key.name)
    }

    /// Who it is, for what stays beside a version or a key: the key's name and id.
    pub(crate) fn signature(&self) -> String {
        match self.key() {
            None => "anonymous".to_owned(),
            Some(key) => format!("{} ({})", key.name, key.id),
        }
    }

    /// The modules it is limited to.
    pub(crate) fn modules(&self) -> Option<&[String]> {
        self.key().and_then(|key| key.modules.as_deref())
    }

    /// The same, for a filter.
    pub(crate) fn only(&self) -> Option<Vec<String>> {
        self.modules().map(<[String]>::to_vec)
    }

    /// Whether a module is among those it may see.
    pub(crate) fn sees(&self, module: &str) -> bool {
        self.modules()
            .is_none_or(|modules| modules.iter().any(|own| own == module))
    }

    /// Whether it may see event data, outputs, logs and journals. Whoever makes keys may give himself that.
    pub(crate) fn payloads(&self) -> bool {
        self.key()
            .is_none_or(|key| key.payloads || key.role == Role::Admin)
    }

    /// Refuses whoever has less than a role.
    ///
    /// # Errors
    /// `forbidden`.
    pub(crate) fn at_least(&self, role: Role) -> Result<(), Problem> {
        let Some(key) = self.key() else {
            return Ok(());
        };
        if key.kind == Kind::Event {
            let message = "this is an event key, which sends events and does nothing else";
            return Err(forbidden(message.to_owned()));
        }
        if key.role < role {
            let (needed, own) = (role.as_str(), key.role.as_str());
            return Err(forbidden(format!(
                "this takes the role {needed}, and the key has the role {own}"
            )));
        }
        Ok(())
    }

    /// Refuses another module than those that the key is for.
    ///
    /// # Errors
    /// `forbidden`.
    pub(crate) fn module(&self, module: &str) -> Result<(), Problem> {
        match self.sees(module) {
            true => Ok(()),
            // A name from a path may be anything.
            false => Err(forbidden(format!(
                "the key is for the module{} {}, and this is about another",
                if self.modules().is_some_and(|modules| modules.len() == 1) {
                    ""
                } else {
                    "s"
                },
                self.modules().unwrap_or_default().join(", ")
            ))),
        }
    }

    /// Refuses a function of another module.
    ///
    /// # Errors
    /// `forbidden`.
    pub(crate) fn function(&self, function: &FunctionName) -> Result<(), Problem> {
        self.module(function.module())
    }

    /// Refuses keys that are limited to modules.
    ///
    /// # Errors
    /// `forbidden`.
    pub(crate) fn whole(&self) -> Result<(), Problem> {
        match self.modules() {
            None => Ok(()),
            Some(modules) => Err(forbidden(format!(
                "this is about more than single modules, and the key is limited to {}",
                modules.join(", ")
            ))),
        }
    }

    /// Refuses keys that may not see payloads.
    ///
    /// # Errors
    /// `forbidden`.
    pub(crate) fn sees_payloads(&self) -> Result<(), Problem> {
        match self.payloads() {
            true => Ok(()),
            false => Err(forbidden(
                "this shows event data, outputs, logs or a journal, and the key was made without --payloads"
                    .to_owned(),
            )),
        }
    }

    /// Whether events may be sent: with an event key, or with an API key that may start any function anyway.
    ///
    /// # Errors
    /// `forbidden`.
    pub(crate) fn sends_events(&self) -> Result<(), Problem> {
        match self.key() {
            None => Ok(()),
            Some(key) if key.kind == Kind::Event => Ok(()),
            Some(_) => self.at_least(Role::Operator).and_then(|()| self.whole()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Access {
    type Rejection = crate::api::Failed;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Access, Self::Rejection> {
        // A route that nobody guards is closed to everybody.
        let access = parts.extensions.get::<Access>().cloned();
        access.ok_or_else(|| crate::api::Failed(Problem::internal()))
    }
}
