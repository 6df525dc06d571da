//! Signing up: an account of one's own, for whoever asks, where the setting `sign_up` lets them.
//!
//! Where mails are sent, the address is confirmed first: a link goes there, and who opens it chooses the password. So
//! nobody makes an account with another's address and a password that only they know. Where none are sent, an address
//! is taken as given, and the account is there at once.

use super::App;
use super::people::PersonError;
use crate::domain::audit::{Actor, Origin};
use crate::domain::id::AccountId;
use crate::domain::key::{KeyHash, Token};
use crate::domain::person;
use crate::mail::is_address;
use crate::store::accounts::NewAccount;
use crate::store::person_links::{LinkKind, SignedUp};

const KNOWN: &str = "There is an account with this email already: log in.";

/// As people are found by it; mail can be sent there.
fn address(email: &str) -> Result<String, PersonError> {
    let email =
        person::normal_email(email).map_err(|want| PersonError::Field("The email", want))?;
    match is_address(&email) {
        true => Ok(email),
        false => Err(PersonError::Field("The email", "is no email address")),
    }
}

impl App {
    /// Could this be somebody's address? Says nothing of who is known.
    pub fn check_address(&self, email: &str) -> Result<(), PersonError> {
        address(email).map(|_| ())
    }

    /// A link that confirms an address and makes an account; `None`: they are known already.
    pub async fn sign_up_link(
        &self,
        email: &str,
        by: &Origin,
    ) -> Result<Option<Token>, PersonError> {
        let email = address(email)?;
        match self.store.person_by_email(&email).await? {
            Some(_) => Ok(None),
            None => self.make_person_link(&email, LinkKind::SignUp, by).await.map(Some),
        }
    }

    /// Makes an account at once, where no address can be confirmed, and logs its owner in.
    pub async fn sign_up(
        &self,
        email: &str,
        password: &str,
        agent: Option<&str>,
        from: &Origin,
    ) -> Result<Token, PersonError> {
        if !self.settings.sign_up || self.mail.is_on() {
            return Err(PersonError::State("An account is made by a link that comes by mail."));
        }
        let email = address(email)?;
        if self.store.person_by_email(&email).await?.is_some() {
            return Err(PersonError::State(KNOWN));
        }
        let hash = self.hashed(password, from.ip).await?;
        self.open_account(&email, &hash, None, agent, from).await
    }

    /// Makes the account that a confirmed address asks for.
    pub(super) async fn finish_sign_up(
        &self,
        token: &Token,
        email: &str,
        password: Option<&str>,
        agent: Option<&str>,
        from: &Origin,
    ) -> Result<Token, PersonError> {
        let password = password.ok_or(PersonError::Field("The password", "is missing"))?;
        let hash = self.hashed(password, from.ip).await?;
        self.open_account(email, &hash, Some(token.hash()), agent, from).await
    }

    async fn open_account(
        &self,
        email: &str,
        hash: &str,
        link: Option<KeyHash>,
        agent: Option<&str>,
        from: &Origin,
    ) -> Result<Token, PersonError> {
        let id = AccountId::new(&self.ids, self.now());
        let by = Origin { actor: Actor::Person(email.to_owned()), ..from.clone() };
        let new = NewAccount { id, email, password_hash: Some(hash), admin: false };
        let credits = self.settings.sign_up_credits;
        let made = self.store.sign_up(&new, credits, link.as_ref(), &by, self.now()).await;
        match made {
            Ok(SignedUp::Made(person)) => self.begin_session(person, email, agent, from).await,
            Ok(SignedUp::Gone) => Err(PersonError::LinkGone),
            Ok(SignedUp::Known) => Err(PersonError::State(KNOWN)),
            Err(error) if error.is_conflict() => Err(PersonError::State(KNOWN)),
            Err(error) => Err(error.into()),
        }
    }
}
