//! An operator stops the use of an account, and lets it go again.
//!
//! From the moment that a suspension has been written down, every key and root key of the account is refused, and its
//! people can change nothing but pause, cancel and erase. Its unended tasks go on, unless that is asked for too: they
//! are paused or cancelled after the doors are shut, one by one, so a call that fails half-way can be made again.

use super::App;
use super::control::ControlError;
use super::keys::KeyError;
use crate::domain::account::{Suspended, TasksThen};
use crate::domain::audit::Origin;
use crate::domain::id::{AccountId, TaskId};

/// Tasks that are looked up at once.
const SOME: i64 = 500;

impl App {
    /// Suspends an account, or says anew why; how many tasks were paused or cancelled. `None`: no such account.
    /// A contact that is empty is the one of the settings.
    pub async fn suspend_account(
        &self,
        account: AccountId,
        reason: &str,
        contact: &str,
        tasks: TasksThen,
        by: &Origin,
    ) -> Result<Option<usize>, KeyError> {
        let told = |field, text| {
            let want = "is missing; the account's people and programs are told it";
            self.words(field, text)?.ok_or_else(|| KeyError::from((field, String::from(want))))
        };
        let reason = told("reason", Some(reason))?;
        let contact = Some(contact).filter(|contact| !contact.trim().is_empty());
        let contact = told("contact", contact.or(self.settings.support_contact.as_deref()))?;
        let suspended = Suspended { reason, contact, since: self.now() };
        if !self.store.suspend_account(account, &suspended, tasks, by).await? {
            return Ok(None);
        }
        tracing::info!(%account, tasks = tasks.as_str(), by = %by.actor, "account suspended");
        match tasks {
            TasksThen::Keep => Ok(Some(0)),
            TasksThen::Pause | TasksThen::Cancel => {
                self.stop_tasks_of(account, tasks, by).await.map(Some)
            }
        }
    }

    /// Lifts the suspension of an account; what it was. `None`: it was not suspended.
    pub async fn unsuspend_account(
        &self,
        account: AccountId,
        reason: Option<&str>,
        by: &Origin,
    ) -> Result<Option<Suspended>, KeyError> {
        let reason = self.words("reason", reason)?;
        let was = self.store.unsuspend_account(account, reason.as_deref(), by, self.now()).await?;
        if was.is_some() {
            tracing::info!(%account, by = %by.actor, "account not suspended any more");
        }
        Ok(was)
    }

    async fn stop_tasks_of(
        &self,
        account: AccountId,
        how: TasksThen,
        by: &Origin,
    ) -> Result<usize, KeyError> {
        let (mut after, mut stopped) = (TaskId::FIRST, 0);
        let paused = how == TasksThen::Cancel;
        loop {
            let tasks = self.store.unended_tasks_of(account, after, paused, SOME).await?;
            let Some(&last) = tasks.last() else { return Ok(stopped) };
            for task in tasks {
                let done = match how {
                    TasksThen::Cancel => self.cancel_by(task, account, by).await.map(|_| ()),
                    _ => self.pause_by(task, account, by).await.map(|_| ()),
                };
                match done {
                    Ok(()) => stopped += 1,
                    // It ended or vanished by itself in between.
                    Err(ControlError::WrongState(_) | ControlError::NotFound) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            after = last;
        }
    }
}
