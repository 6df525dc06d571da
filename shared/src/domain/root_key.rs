//! Root keys: who may make, change and verify the keys of an account's apis.
//!
//! A root key opens nothing but `/v2`. What it may do is said by permissions ([`super::permission`]) of the form
//! `api.WHICH.ACTION`, where WHICH is the id of an api, or `*`.

use super::clock::Millis;
use super::id::{AccountId, ApiId, RootKeyId};
use super::permission::covers;

/// Permissions of one root key.
pub const MOST: usize = 100;
/// What the secrets begin with.
pub const PREFIX: &str = "root";

/// What a root key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make an api.
    CreateApi,
    /// Show an api.
    ReadApi,
    /// Delete an api, and its keys with it.
    DeleteApi,
    /// Make a key, also in another's place.
    CreateKey,
    /// Show keys.
    ReadKey,
    /// Change a key.
    UpdateKey,
    /// Delete a key.
    DeleteKey,
    /// Verify a key.
    VerifyKey,
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 8] = [
        Action::CreateApi,
        Action::ReadApi,
        Action::DeleteApi,
        Action::CreateKey,
        Action::ReadKey,
        Action::UpdateKey,
        Action::DeleteKey,
        Action::VerifyKey,
    ];

    /// The last part of the permission.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::CreateApi => "create_api",
            Action::ReadApi => "read_api",
            Action::DeleteApi => "delete_api",
            Action::CreateKey => "create_key",
            Action::ReadKey => "read_key",
            Action::UpdateKey => "update_key",
            Action::DeleteKey => "delete_key",
            Action::VerifyKey => "verify_key",
        }
    }

    /// The permission for it, of one api, or of any.
    pub fn permission(self, api: Option<ApiId>) -> String {
        match api {
            Some(api) => format!("api.{api}.{}", self.as_str()),
            None => format!("api.*.{}", self.as_str()),
        }
    }
}

/// A root key as stored.
#[derive(Debug, Clone)]
pub struct RootKey {
    /// Its id.
    pub id: RootKeyId,
    /// Whose apis.
    pub account: AccountId,
    /// The first characters of its secret.
    pub start: String,
    /// What it is called.
    pub name: String,
    /// What it may do.
    pub permissions: Vec<String>,
    /// When it was made.
    pub created_at: Millis,
}

impl RootKey {
    /// May it do this to that api (`None`: to any)?
    pub fn may(&self, action: Action, api: Option<ApiId>) -> bool {
        let asked = action.permission(api);
        self.permissions.iter().any(|held| covers(held, &asked))
    }

    /// May it do this to some api?
    pub fn may_somewhere(&self, action: Action) -> bool {
        let reaches = |held: &String| {
            let which = held.split('.').nth(1).unwrap_or("*");
            covers(held, &format!("api.{which}.{}", action.as_str()))
        };
        self.permissions.iter().any(reaches)
    }
}

/// Is this a permission that a root key can hold to any effect?
pub fn is_permission(text: &str) -> bool {
    let reaches = |action: &Action| {
        let which = text.split('.').nth(1).unwrap_or("*");
        covers(text, &format!("api.{which}.{}", action.as_str()))
    };
    super::permission::is_name(text) && Action::ALL.iter().any(reaches)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Ids;

    #[test]
    fn permissions_reach_as_far_as_they_say() {
        let ids = Ids::seeded(1);
        let (one, other) = (ApiId::new(&ids, 1), ApiId::new(&ids, 1));
        let key = |permissions: &[String]| RootKey {
            id: RootKeyId::new(&ids, 1),
            account: AccountId::new(&ids, 1),
            start: String::new(),
            name: String::new(),
            permissions: permissions.to_vec(),
            created_at: 1,
        };
        let narrow = key(&[Action::VerifyKey.permission(Some(one))]);
        assert!(narrow.may(Action::VerifyKey, Some(one)));
        assert!(!narrow.may(Action::VerifyKey, Some(other)));
        assert!(!narrow.may(Action::VerifyKey, None));
        assert!(narrow.may_somewhere(Action::VerifyKey));
        assert!(!narrow.may_somewhere(Action::CreateKey));
        let wide = key(&[String::from("api.*.verify_key")]);
        assert!(wide.may(Action::VerifyKey, Some(other)) && wide.may(Action::VerifyKey, None));
        assert!(!wide.may(Action::ReadKey, Some(one)));
        for all in ["*", "api.*"] {
            let all = key(&[all.to_owned()]);
            for action in Action::ALL {
                assert!(all.may(action, Some(one)) && all.may(action, None));
                assert!(all.may_somewhere(action));
            }
        }
        assert!(!key(&[]).may_somewhere(Action::VerifyKey));
        for good in ["*", "api.*", "api.*.create_key", "api.api_1.verify_key"] {
            assert!(is_permission(good), "{good}");
        }
        for bad in ["", "api", "api.*.nothing", "ratelimit.*.limit", "api.a.b.create_key", "a b"] {
            assert!(!is_permission(bad), "{bad}");
        }
    }
}
