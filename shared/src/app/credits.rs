//! Granting credits, and making an account.

use argon2::Argon2;
use argon2::password_hash::PasswordHasher;

use super::App;
use crate::domain::audit::Origin;
use crate::domain::id::{AccountId, Ids};
use crate::domain::ledger::Kind;
use crate::store::StoreError;

/// Tasks looked at in one go when credits arrive.
pub const RESUME_AT_ONCE: i64 = 100;

/// Why an account was not made.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// Its e-mail is taken.
    #[error("there is an account with this e-mail already")]
    Taken,
    /// The password could not be hashed.
    #[error("the password cannot be used: {0}")]
    Password(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl App {
    /// Makes an account with `credits` e-mail credits.
    pub async fn create_account(
        &self,
        email: &str,
        password: Option<&str>,
        credits: i64,
        admin: bool,
        by: &Origin,
    ) -> Result<AccountId, AccountError> {
        let hash = password.map(|password| hash_password(password, &self.ids)).transpose()?;
        let id = AccountId::new(&self.ids, self.now());
        let made = self.store.create_account(id, email, hash.as_deref(), admin, by, self.now());
        made.await.map_err(|error| match error.is_conflict() {
            true => AccountError::Taken,
            false => error.into(),
        })?;
        if credits > 0 {
            self.store.grant(id, Kind::Email, credits, Some("opening"), by, self.now()).await?;
        }
        Ok(id)
    }

    /// Gives credits (or takes them back, when negative); tasks that paused for want of them go on.
    /// Returns the balance afterwards.
    pub async fn grant(
        &self,
        account: AccountId,
        kind: Kind,
        amount: i64,
        note: Option<&str>,
        by: &Origin,
    ) -> Result<i64, StoreError> {
        let posted = self.store.grant(account, kind, amount, note, by, self.now()).await?;
        if posted.awaited {
            self.credits_came(account).await;
        }
        Ok(posted.balance)
    }

    /// Lets tasks go on that wait for an account's credits. The credits have moved: what fails here is only
    /// logged, and done by the sweeper.
    pub async fn credits_came(&self, account: AccountId) {
        let going_on = async {
            if self.store.resume_funded(account, RESUME_AT_ONCE, self.now()).await? > 0 {
                tracing::info!(%account, "credits arrived; tasks go on");
                self.dispatch().await?;
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = going_on.await {
            tracing::warn!(%error, %account, "credits arrived; its tasks go on a little later");
        }
    }
}

/// Argon2id with the crate's recommended parameters; the salt comes from the source of randomness.
fn hash_password(password: &str, ids: &Ids) -> Result<String, AccountError> {
    let salt: [u8; 16] = ids.bytes();
    Argon2::default()
        .hash_password_with_salt(password.as_bytes(), &salt)
        .map(|hash| hash.to_string())
        .map_err(|error| AccountError::Password(error.to_string()))
}
