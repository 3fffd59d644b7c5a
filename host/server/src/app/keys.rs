//! Making and revoking keys.

use dormouse_core::key::{Key, KeyId, Kind, MODULES_MAX, NAME_BYTES_MAX, Refused, Role, Secret};
use dormouse_core::{Timestamp, limit, name};
use dormouse_store::Store;
use dormouse_store::key::{Created, Revoked};

use super::{App, uncancelled};
use crate::problem::Problem;
use crate::router::random;

/// A key that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedKey {
    /// What for.
    pub kind: Kind,
    /// What people call it.
    pub name: String,
    /// What its holder may do. None for an event key, which says nothing of it.
    pub role: Option<Role>,
    /// Only with these modules. None: with all.
    pub modules: Option<Vec<String>>,
    /// Whether its holder sees payloads.
    pub payloads: bool,
    /// From when on it is good for nothing.
    pub expires_at: Option<Timestamp>,
}

/// A key that was made: the only time that its text is there.
pub struct Made {
    /// The key, as it is stored.
    pub key: Key,
    /// What its holder is given.
    pub text: String,
}

impl App {
    /// Makes a key. In force on this node when this returns, and on every other half a second later.
    ///
    /// # Errors
    /// `invalid-key` for what makes no sense; `first-key` when there is none yet and this one could not make others;
    /// `too-many-keys`.
    pub async fn create_key(&self, wanted: WantedKey, by: &str) -> Result<Made, Problem> {
        self.accepting()?;
        let (app, by) = (self.clone(), by.to_owned());
        uncancelled(async move {
            let made = make(&*app.0.store, &wanted, &by, app.now()).await?;
            app.0.keys.changed().await;
            tracing::info!(key = %made.key.id, kind = made.key.kind.as_str(), by, "a key was made");
            Ok(made)
        })
        .await
    }

    /// Revokes a key: good for nothing on this node when this returns, and on every other half a second later. True: it was
    /// good until now.
    ///
    /// # Errors
    /// `not-found`; `last-admin-key` when nobody could make others then.
    pub async fn revoke_key(&self, id: KeyId) -> Result<(Key, bool), Problem> {
        let app = self.clone();
        uncancelled(async move {
            let revoked = revoke(&*app.0.store, id, app.now()).await;
            app.0.keys.changed().await;
            let (key, changed) = revoked?;
            tracing::info!(key = %key.id, changed, "a key was revoked");
            Ok((key, changed))
        })
        .await
    }
}

/// Makes a key in a store.
///
/// # Errors
/// As [`App::create_key`].
pub(crate) async fn make(
    store: &dyn Store,
    wanted: &WantedKey,
    by: &str,
    now: Timestamp,
) -> Result<Made, Problem> {
    check(wanted, now)?;
    // An id has 48 random bits: that one is taken happens to nobody twice.
    for _ in 0..3 {
        let (id, secret) = (KeyId::from_bytes(random()), Secret::from_bytes(random()));
        let key = Key {
            id,
            kind: wanted.kind,
            name: wanted.name.clone(),
            role: wanted.role.unwrap_or(Role::Viewer),
            modules: wanted.modules.clone(),
            payloads: wanted.payloads || wanted.role == Some(Role::Admin),
            verifier: secret.verifier(),
            created_at: now,
            created_by: by.to_owned(),
            expires_at: wanted.expires_at,
            revoked_at: None,
        };
        let text = secret.text(key.kind, id);
        return match store.create_key(key.clone()).await? {
            Created::Done => Ok(Made { key, text }),
            Created::Refused(Refused::Taken) => continue,
            Created::Refused(Refused::FirstMustBeAdmin) => Err(Problem::new(
                409,
                "first-key",
                "the first key closes the server, so it must be an API key with the role admin that does not expire: \
                 nobody could make others otherwise",
            )
            .help("dormouse keys create --role admin --name NAME")),
            Created::Refused(Refused::TooMany) => Err(Problem::new(
                409,
                "too-many-keys",
                format!("there are {} keys that are not revoked, and no more may be", limit::KEYS_MAX),
            )
            .help("revoke those that nobody needs: dormouse keys list")),
        };
    }
    Err(Problem::internal())
}

/// Revokes a key in a store.
///
/// # Errors
/// As [`App::revoke_key`].
pub(crate) async fn revoke(store: &dyn Store, id: KeyId, now: Timestamp) -> Result<(Key, bool), Problem> {
    match store.revoke_key(id, now).await? {
        Revoked::Done(key) => Ok((key, true)),
        Revoked::Before(key) => Ok((key, false)),
        Revoked::Last => Err(Problem::new(
            409,
            "last-admin-key",
            "this is the last admin key that does not expire: nobody could make others without it",
        )
        .help("make another first: dormouse keys create --role admin --name NAME")),
        Revoked::NotFound => Err(Problem::not_found("key", id)),
    }
}

fn check(wanted: &WantedKey, now: Timestamp) -> Result<(), Problem> {
    let invalid = |message: String| Err(Problem::new(400, "invalid-key", message));
    let name = wanted.name.as_str();
    if name.trim().is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return invalid(format!(
            "name: 1 to {NAME_BYTES_MAX} bytes without control characters, so that people know it again"
        ));
    }
    match (wanted.kind, wanted.role) {
        (Kind::Api, None) => {
            return invalid("role: an API key has one of viewer, operator, deployer, admin".to_owned());
        }
        (Kind::Event, Some(_)) => {
            return invalid("role: an event key has none, it sends events and nothing else".to_owned());
        }
        _ => {}
    }
    if wanted.kind == Kind::Event && (wanted.modules.is_some() || wanted.payloads) {
        return invalid("an event key sees nothing: it has neither modules nor payloads".to_owned());
    }
    if let Some(modules) = &wanted.modules {
        if wanted.role == Some(Role::Admin) {
            return invalid(
                "modules: an admin is one of the whole server; a deployer can be limited".to_owned(),
            );
        }
        if modules.is_empty() || modules.len() > MODULES_MAX {
            return invalid(format!(
                "modules: 1 to {MODULES_MAX}, or none at all for every module"
            ));
        }
        for module in modules {
            if let Err(error) = name::check(module) {
                return invalid(format!("modules: {error}"));
            }
        }
    }
    match wanted.expires_at {
        Some(at) if at <= now => invalid(format!("expires_at: {at} is over")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused() {
        let now = Timestamp::from_millis(1_000);
        let good = WantedKey {
            kind: Kind::Api,
            name: "ci".to_owned(),
            role: Some(Role::Deployer),
            modules: Some(vec!["shop".to_owned()]),
            payloads: true,
            expires_at: Some(Timestamp::from_millis(1_001)),
        };
        let event = WantedKey {
            kind: Kind::Event,
            role: None,
            modules: None,
            payloads: false,
            ..good.clone()
        };
        assert_eq!(check(&good, now), Ok(()));
        assert_eq!(check(&event, now), Ok(()));
        let wrong = [
            WantedKey {
                name: " ".to_owned(),
                ..good.clone()
            },
            WantedKey {
                name: "a\nb".to_owned(),
                ..good.clone()
            },
            WantedKey {
                name: "x".repeat(NAME_BYTES_MAX + 1),
                ..good.clone()
            },
            WantedKey {
                role: None,
                ..good.clone()
            },
            WantedKey {
                role: Some(Role::Admin),
                ..good.clone()
            },
            WantedKey {
                modules: Some(Vec::new()),
                ..good.clone()
            },
            WantedKey {
                modules: Some(vec!["a,b".to_owned()]),
                ..good.clone()
            },
            WantedKey {
                expires_at: Some(now),
                ..good.clone()
            },
            WantedKey {
                role: Some(Role::Viewer),
                ..event.clone()
            },
            WantedKey {
                payloads: true,
                ..event.clone()
            },
        ];
        for wanted in wrong {
            let refused = check(&wanted, now).map_err(|problem| problem.code);
            assert_eq!(refused, Err("invalid-key"), "{wanted:?}");
        }
    }
}
