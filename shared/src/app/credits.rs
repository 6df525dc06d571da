//! Granting credits, showing where they are, and making an account.

use super::App;
use super::people::hash_password;
use crate::domain::audit::Origin;
use crate::domain::clock::Millis;
use crate::domain::id::AccountId;
use crate::domain::ledger::Kind;
use crate::domain::person::normal_email;
use crate::store::StoreError;
use crate::store::credit_page::{AccountBooks, Entries, Holder, Want, Wanted};

/// Tasks looked at in one go when credits arrive.
pub const RESUME_AT_ONCE: i64 = 100;

/// Why an account was not made.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// Its email is taken.
    #[error("there is an account with this email already")]
    Taken,
    /// Somebody else logs in with it.
    #[error("an account or a person has this email already")]
    Known,
    /// What cannot be an email.
    #[error("{0}")]
    Email(&'static str),
    /// The password could not be hashed.
    #[error("the password cannot be used: {0}")]
    Password(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Tasks that are named among those that hold credits.
const HOLDERS: i64 = 20;

/// Where an account's credits are.
#[derive(Debug, Clone)]
pub struct Whereabouts {
    /// The books, a row for each kind.
    pub books: Vec<AccountBooks>,
    /// The newest tasks that hold credits.
    pub holders: Vec<Holder>,
    /// What paused tasks wait for.
    pub want: Want,
}

impl App {
    /// Where an account's credits are.
    pub async fn whereabouts(&self, account: AccountId) -> Result<Whereabouts, StoreError> {
        let books = self.store.account_books(account).await?;
        let holders = self.store.holders(account, HOLDERS).await?;
        let want = self.store.wanted_credits(account).await?;
        Ok(Whereabouts { books, holders, want })
    }

    /// Credits that an account was charged, by hour, since `from`; those of a task when it ended.
    pub async fn charged_by_hour(
        &self,
        account: AccountId,
        from: Millis,
    ) -> Result<Vec<(Millis, i64)>, StoreError> {
        self.store.charged_by_hour(account, from).await
    }

    /// Entries of an account's ledger, newest first, before the number `before`.
    pub async fn ledger(
        &self,
        account: AccountId,
        wanted: Wanted,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Entries, StoreError> {
        self.store.wanted_entries(account, wanted, before, limit).await
    }

    /// Makes an account with `credits` email credits.
    pub async fn create_account(
        &self,
        email: &str,
        password: Option<&str>,
        credits: i64,
        admin: bool,
        by: &Origin,
    ) -> Result<AccountId, AccountError> {
        let hash = password.map(|password| hash_password(password, &self.ids)).transpose();
        let hash = hash.map_err(AccountError::Password)?;
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

    /// Calls an account by another email; with `login`, those of its owners who log in with the old one log in with
    /// this from now on. Tells the old email, the new one, and whether a log-in has changed; none: no such account.
    pub async fn rename_account(
        &self,
        account: AccountId,
        email: &str,
        login: bool,
        by: &Origin,
    ) -> Result<Option<(String, String, bool)>, AccountError> {
        let email = normal_email(email).map_err(AccountError::Email)?;
        let renamed = self.store.rename_account(account, &email, login, by, self.now()).await;
        let renamed = renamed.map_err(|error| match error.is_conflict() {
            true => AccountError::Known,
            false => error.into(),
        })?;
        Ok(renamed.map(|(old, moved)| (old, email, moved)))
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
