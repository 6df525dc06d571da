//! What the account page shows and ends: a person's sessions, and the people of an account. What changes them is
//! in [`super::people`].

use super::App;
use crate::domain::audit::Origin;
use crate::domain::id::{AccountId, SessionId};
use crate::domain::key::Token;
use crate::domain::person::Session;
use crate::store::StoreError;
use crate::store::people::{Member, Place};

impl App {
    /// The sessions of a session's person, the newest first.
    pub async fn sessions_beside(&self, session: &Session) -> Result<Vec<Session>, StoreError> {
        self.store.sessions_of(session.person, self.now()).await
    }

    /// Ends one session of a session's person, or (`None`) all others. How many ended.
    pub async fn end_sessions(
        &self,
        token: &Token,
        session: &Session,
        which: Option<SessionId>,
        by: &Origin,
    ) -> Result<u64, StoreError> {
        self.store.end_sessions(session.person, which, &token.hash(), by, self.now()).await
    }

    /// The accounts of a session's person.
    pub async fn accounts_of(&self, session: &Session) -> Result<Vec<Place>, StoreError> {
        self.store.accounts_of(session.person).await
    }

    /// Goes on in another account of the session's person, with another token: what an open page of the account
    /// before still sends is refused. `None`: they have no place there.
    pub async fn switch_account(
        &self,
        token: &Token,
        session: &Session,
        account: AccountId,
        by: &Origin,
    ) -> Result<Option<Token>, StoreError> {
        let new = Token::from(self.ids.bytes::<32>());
        let (hashes, now) = ((token.hash(), new.hash()), self.now());
        let hashes = (&hashes.0, &hashes.1);
        let done = self.store.switch_account(hashes, session.person, account, by, now).await?;
        Ok(done.then_some(new))
    }

    /// The people of an account.
    pub async fn people(&self, account: AccountId) -> Result<Vec<Member>, StoreError> {
        self.store.members(account).await
    }

    /// Recovery codes that a session's person has left.
    pub async fn recovery_codes_left(&self, session: &Session) -> Result<i64, StoreError> {
        self.store.recovery_codes(session.person).await
    }
}
