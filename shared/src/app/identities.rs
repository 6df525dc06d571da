//! Logging in by an issuer of OpenID Connect: what becomes of it once the issuer has said who somebody is. (What
//! is asked of the issuer, and how its word is tested, is the API's.)
//!
//! | step | what is kept | for |
//! | --- | --- | --- |
//! | [`App::begin_issuer_login`] | a token's hash, the page to go on with | ten minutes, one use |
//! | [`App::identify`] | as whom the issuer knows the person; a session | |
//! | ... where one-time codes are on | a token's hash, who, as whom | five minutes, one use |
//!
//! The issuer's word stands for the password, not for the one-time code: who has switched that on gives it, and is
//! tied to the identity only then. A person is found by the issuer's name for them; the first time by an email
//! that the issuer has tested. One identity for a person at an issuer: an email that it gives to somebody else
//! later does not lead to who had it before.

use super::App;
use super::people::PersonError;
use crate::domain::audit::{Actor, Origin};
use crate::domain::clock::Millis;
use crate::domain::id::AccountId;
use crate::domain::key::Token;
use crate::domain::person::{self, Person};
use crate::store::StoreError;
use crate::store::accounts::NewAccount;
use crate::store::identities::Pending;
use crate::store::person_links::SignedUp;

/// A log-in may take so long at the issuer.
pub const AWAY: Millis = 600_000;
/// A one-time code may be given for so long.
const CODE: Millis = 300_000;

/// Who somebody is, as an issuer says it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The issuer.
    pub issuer: String,
    /// Its name for the person: never another's.
    pub subject: String,
    /// The person's email, if the issuer has tested that it is theirs.
    pub email: Option<String>,
}

/// How it goes on.
#[derive(Debug)]
pub enum Entry {
    /// They are in. The token is for the browser's cookie.
    In(Token),
    /// A one-time code is missing; this token stands for what was proven so far.
    Code(Token),
}

/// Why somebody whom an issuer knows is not let in.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The issuer has not tested the email, and does not know them from before.
    #[error("the email was not tested")]
    Unverified,
    /// Nobody here has this email.
    #[error("nobody has this email")]
    Unknown,
    /// The person with this email is known to the issuer as somebody else.
    #[error("the person with this email has another identity at the issuer")]
    Another,
    /// What came before it is used or over.
    #[error("the log-in is used or over")]
    Gone,
    /// As with any other log-in.
    #[error(transparent)]
    Person(#[from] PersonError),
}

impl From<StoreError> for IdentityError {
    fn from(error: StoreError) -> Self {
        Self::Person(error.into())
    }
}

impl App {
    /// Begins a log-in that goes on at the issuer. The token is for the browser's cookie.
    pub async fn begin_issuer_login(&self, token: &Token, next: &str) -> Result<(), StoreError> {
        let now = self.now();
        self.store.begin_issuer_login(&token.hash(), next, now + AWAY, now).await
    }

    /// Uses up a log-in that comes back from the issuer: the page to go on with.
    pub async fn take_issuer_login(&self, token: &Token) -> Result<Option<String>, StoreError> {
        self.store.take_issuer_login(&token.hash(), self.now()).await
    }

    /// Lets in whom the issuer has named, or asks for their one-time code.
    pub async fn identify(
        &self,
        identity: &Identity,
        next: &str,
        agent: Option<&str>,
        from: &Origin,
    ) -> Result<Entry, IdentityError> {
        let Identity { issuer, subject, .. } = identity;
        let known = self.store.person_by_identity(issuer, subject).await?;
        let is_known = known.is_some();
        let person = match known {
            Some(person) => person,
            None => self.person_of(identity, from).await?,
        };
        if person.code_on {
            let token = Token::from(self.ids.bytes::<32>());
            let (issuer, subject) = (issuer.clone(), subject.clone());
            let pending = Pending { person_id: person.id, issuer, subject, next: next.to_owned() };
            self.store.add_pending_login(&token.hash(), &pending, self.now() + CODE).await?;
            return Ok(Entry::Code(token));
        }
        if !is_known {
            self.tie(&person, issuer, subject, from).await?;
        }
        Ok(Entry::In(self.enter(&person, agent, from).await?))
    }

    /// Who has this email and no identity at the issuer yet.
    async fn person_of(&self, identity: &Identity, from: &Origin) -> Result<Person, IdentityError> {
        let email = identity.email.as_deref().ok_or(IdentityError::Unverified)?;
        let email = person::normal_email(email).map_err(|_| IdentityError::Unverified)?;
        let person = match self.store.person_by_email(&email).await? {
            Some(person) => person,
            None => self.account_of_their_own(&email, from).await?,
        };
        match self.store.has_identity(person.id, &identity.issuer).await? {
            true => Err(IdentityError::Another),
            false => Ok(person),
        }
    }

    /// Makes an account for whom nobody knows, if the settings take them.
    async fn account_of_their_own(
        &self,
        email: &str,
        from: &Origin,
    ) -> Result<Person, IdentityError> {
        if !self.settings.oidc_takes(email) || self.check_address(email).is_err() {
            return Err(IdentityError::Unknown);
        }
        let by = Origin { actor: Actor::Person(email.to_owned()), ..from.clone() };
        let id = AccountId::new(&self.ids, self.now());
        let new = NewAccount { id, email, password_hash: None, admin: false };
        let credits = self.settings.sign_up_credits;
        match self.store.sign_up(&new, credits, None, &by, self.now()).await {
            Ok(SignedUp::Made(person)) => {
                self.store.person(person).await?.ok_or(IdentityError::Unknown)
            }
            Ok(_) => Err(IdentityError::Unknown),
            Err(error) if error.is_conflict() => Err(IdentityError::Unknown),
            Err(error) => Err(error.into()),
        }
    }

    /// From now on the issuer's name for them is enough.
    async fn tie(
        &self,
        person: &Person,
        issuer: &str,
        subject: &str,
        from: &Origin,
    ) -> Result<(), IdentityError> {
        let by = Origin { actor: Actor::Person(person.email.clone()), ..from.clone() };
        if self.store.add_identity(person.id, issuer, subject, &by, self.now()).await? {
            return Ok(());
        }
        // Somebody was quicker: themselves in another browser, or whom that name or email leads to as well.
        let now = self.store.person_by_identity(issuer, subject).await?;
        match now.is_some_and(|known| known.id == person.id) {
            true => Ok(()),
            false => Err(IdentityError::Another),
        }
    }

    /// Who has a password gives it for what is final. Who has none is as good as they log in.
    async fn enter(
        &self,
        person: &Person,
        agent: Option<&str>,
        from: &Origin,
    ) -> Result<Token, PersonError> {
        let proven = person.password_hash.is_none();
        self.begin_session_as((person.id, &person.email), proven, agent, from).await
    }

    /// The email of whom the one-time code is asked for; `None`: the log-in is used or over.
    pub async fn pending_email(&self, token: &Token) -> Result<Option<String>, StoreError> {
        let Some(pending) = self.store.pending_login(&token.hash(), self.now()).await? else {
            return Ok(None);
        };
        Ok(self.store.person(pending.person_id).await?.map(|person| person.email))
    }

    /// Takes the one-time code that was missing: a session, and the page to go on with.
    pub async fn identify_with_code(
        &self,
        token: &Token,
        code: &str,
        agent: Option<&str>,
        from: &Origin,
    ) -> Result<(Token, String), IdentityError> {
        let hash = token.hash();
        let pending = self.store.pending_login(&hash, self.now()).await?;
        let pending = pending.ok_or(IdentityError::Gone)?;
        let person = self.store.person(pending.person_id).await?.ok_or(IdentityError::Gone)?;
        if person.code_on && !self.take_code(&person, code.trim()).await? {
            return Err(PersonError::Refused.into());
        }
        if !self.store.end_pending_login(&hash, self.now()).await? {
            return Err(IdentityError::Gone);
        }
        self.tie(&person, &pending.issuer, &pending.subject, from).await?;
        Ok((self.enter(&person, agent, from).await?, pending.next))
    }

    /// Forgets as whom the issuer knows the person with this email: the next log-in by it ties them anew.
    pub async fn forget_identity(&self, email: &str, by: &Origin) -> Result<(), PersonError> {
        let email =
            person::normal_email(email).map_err(|want| PersonError::Field("The email", want))?;
        let person = self.store.person_by_email(&email).await?;
        let person = person.ok_or(PersonError::State("nobody has this email"))?;
        let issuer = self.settings.oidc_issuer.as_deref();
        let issuer = issuer.ok_or(PersonError::State("oidc_issuer is not set"))?;
        match self.store.remove_identity(person.id, issuer, by, self.now()).await? {
            true => Ok(()),
            false => Err(PersonError::State("the issuer does not know this person")),
        }
    }
}
