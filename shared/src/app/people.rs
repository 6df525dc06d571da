//! People: logging in, sessions, passwords, one-time codes. The links that stand in for them are in
//! [`super::person_links`].
//!
//! Passwords are kept as Argon2id. Hashing takes 19 MiB and tens of milliseconds, so a few are at work and some wait
//! ([`super::hashing`]), and no more. Who is not known, and who has no password, is held against a hash that
//! nothing fits: what is answered, and when, does not tell who is known.
//!
//! The secret of one-time codes (RFC 6238) follows from a salt in the person's row and the pepper: a copy of
//! the database makes no codes. Each code is of use once, and so is each recovery code.

use std::net::IpAddr;
use std::sync::LazyLock;

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use sha2::{Digest, Sha256};
use totp_rs::{Builder, Secret as CodeSecret, Totp};

use super::App;
use super::hashing::HashError;
use crate::domain::audit::{Actor, Origin};
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, Ids, PersonId, SessionId};
use crate::domain::key::{KeyHash, Pepper, Token};
use crate::domain::person::{self, Person, Role, Session};
use crate::store::StoreError;
use crate::store::logins::NewSession;

/// A session is noted as seen at most so often.
const SEEN: Millis = 60_000;
/// Recovery codes of a person.
const RECOVERY_CODES: usize = 10;
/// Bytes of a browser's name that are kept.
const AGENT: usize = 200;

/// A hash of the same cost that no password fits: for who is not known.
static NOBODY: LazyLock<String> = LazyLock::new(|| {
    let hash = Argon2::default().hash_password_with_salt(&[0; 32], &[0; 16]);
    hash.map(|hash| hash.to_string()).unwrap_or_default()
});

/// Why a person was not let in, or a change of theirs was not made.
#[derive(Debug, thiserror::Error)]
pub enum PersonError {
    /// Email, password or code is wrong; which, is not told.
    #[error("the email, the password or the code is not right")]
    Refused,
    /// The password is right, and a one-time code is needed.
    #[error("a one-time code is needed")]
    CodeNeeded,
    /// A value that cannot be.
    #[error("{0} {1}")]
    Field(&'static str, &'static str),
    /// A link that was used, is over, or never was.
    #[error("this link was used or has expired")]
    LinkGone,
    /// Somebody else is at it, or the state does not allow it.
    #[error("{0}")]
    State(&'static str),
    /// Too many passwords are being looked at.
    #[error("too many people are logging in at this moment")]
    Busy,
    /// The password could not be hashed.
    #[error("the password cannot be used: {0}")]
    Hash(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<HashError> for PersonError {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Busy => Self::Busy,
            error => Self::Hash(error.to_string()),
        }
    }
}

/// What somebody gives to log in.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// Their email.
    pub email: &'a str,
    /// Their password.
    pub password: &'a str,
    /// A one-time code, or a recovery code.
    pub code: Option<&'a str>,
}

/// Argon2id with the crate's recommended parameters (RFC 9106, 4, second choice halved: OWASP's 19 MiB); the
/// salt comes from the source of randomness.
pub(super) fn hash_password(password: &str, ids: &Ids) -> Result<String, String> {
    let salt: [u8; 16] = ids.bytes();
    let hash = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt);
    hash.map(|hash| hash.to_string()).map_err(|error| error.to_string())
}

fn fits(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// What is stored of a recovery code, however it is written.
fn recovery_hash(code: &str) -> KeyHash {
    let code: String =
        code.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    Sha256::digest(code).into()
}

/// 20 bytes: as many as RFC 4226, 4, asks for.
fn code_secret(pepper: &Pepper, salt: &[u8]) -> CodeSecret {
    let derived = pepper.derive("listmill: one-time codes", salt);
    let mut secret = [0; 20];
    secret.copy_from_slice(&derived[..20]);
    CodeSecret::from(secret)
}

impl App {
    /// What is stored of a new password, if it may be one; `from` is who waits for it.
    pub(super) async fn hashed(
        &self,
        password: &str,
        from: Option<IpAddr>,
    ) -> Result<String, PersonError> {
        person::check_password(password)
            .map_err(|want| PersonError::Field("The password", want))?;
        let (password, ids) = (password.to_owned(), self.ids.clone());
        let hash = self.hashing.run(from, move || hash_password(&password, &ids)).await?;
        hash.map_err(PersonError::Hash)
    }

    /// Is this their password? As slow for who has none.
    pub(super) async fn proves(
        &self,
        person: Option<&Person>,
        password: &str,
        from: Option<IpAddr>,
    ) -> Result<bool, PersonError> {
        let known = person.and_then(|person| person.password_hash.clone());
        let (hash, password) = (known.unwrap_or_else(|| NOBODY.clone()), password.to_owned());
        if password.len() > person::LONGEST_PASSWORD {
            return Ok(false);
        }
        Ok(self.hashing.run(from, move || fits(&password, &hash)).await?)
    }

    /// Logs a person in. The token is for the browser's cookie, and stored nowhere.
    pub async fn log_in(
        &self,
        with: Credentials<'_>,
        agent: Option<&str>,
        from: &Origin,
    ) -> Result<Token, PersonError> {
        let email = person::normal_email(with.email).unwrap_or_default();
        let person = self.store.person_by_email(&email).await?;
        let proven = self.proves(person.as_ref(), with.password, from.ip).await?;
        let Some(person) = person.filter(|_| proven) else { return Err(PersonError::Refused) };
        if person.code_on {
            let code = with.code.map(str::trim).filter(|code| !code.is_empty());
            let code = code.ok_or(PersonError::CodeNeeded)?;
            if !self.take_code(&person, code).await? {
                return Err(PersonError::Refused);
            }
        }
        self.begin_session(person.id, &person.email, agent, from).await
    }

    /// Begins a session of somebody who has proven who they are.
    pub(super) async fn begin_session(
        &self,
        person: PersonId,
        email: &str,
        agent: Option<&str>,
        from: &Origin,
    ) -> Result<Token, PersonError> {
        self.begin_session_as((person, email), true, agent, from).await
    }

    /// Likewise; `proven`: in it the password need not be given again for a while.
    pub(super) async fn begin_session_as(
        &self,
        (person, email): (PersonId, &str),
        proven: bool,
        agent: Option<&str>,
        from: &Origin,
    ) -> Result<Token, PersonError> {
        let account = self.store.first_account(person).await?.ok_or(PersonError::Refused)?;
        let token = Token::from(self.ids.bytes::<32>());
        let agent = agent.map(|agent| agent.chars().take(AGENT).collect::<String>());
        let lasts = i64::try_from(self.settings.session_ttl.as_millis()).unwrap_or(0);
        let now = self.now();
        let new = NewSession {
            id: SessionId::new(&self.ids, now),
            token_hash: token.hash(),
            person,
            account,
            proven_at: if proven { now } else { 0 },
            ends_at: now.saturating_add(lasts),
            agent: agent.as_deref(),
        };
        let by = Origin { actor: Actor::Person(email.to_owned()), ..from.clone() };
        self.store.begin_session(&new, &by, now).await?;
        Ok(token)
    }

    /// Who is logged in with this token.
    pub async fn session(&self, token: &Token) -> Result<Option<Session>, StoreError> {
        let (hash, now) = (token.hash(), self.now());
        let session = self.store.session(&hash, now).await?;
        if session.as_ref().is_some_and(|session| session.seen_at + SEEN <= now)
            && let Err(error) = self.store.touch_session(&hash, now).await
        {
            tracing::debug!(%error, "a session is not noted as seen");
        }
        Ok(session)
    }

    /// Ends the session of this token.
    pub async fn log_out(&self, token: &Token) -> Result<(), StoreError> {
        self.store.end_session(&token.hash()).await
    }

    /// Was the password given a short while ago? What is final asks for it otherwise.
    pub fn is_proven(&self, session: &Session) -> bool {
        let lasts = i64::try_from(self.settings.session_proof.as_millis()).unwrap_or(0);
        self.now() < session.proven_at.saturating_add(lasts)
    }

    /// Takes the password in a session that goes on.
    pub async fn prove(
        &self,
        token: &Token,
        session: &Session,
        password: &str,
        from: Option<IpAddr>,
    ) -> Result<(), PersonError> {
        let person = self.store.person(session.person).await?;
        if !self.proves(person.as_ref(), password, from).await? {
            return Err(PersonError::Refused);
        }
        Ok(self.store.prove_session(&token.hash(), self.now()).await?)
    }

    /// Gives the person of a session another password; all their other sessions end.
    pub async fn change_password(
        &self,
        token: &Token,
        session: &Session,
        old: &str,
        new: &str,
        by: &Origin,
    ) -> Result<(), PersonError> {
        self.prove(token, session, old, by.ip).await?;
        let hash = self.hashed(new, by.ip).await?;
        let keep = Some(token.hash());
        Ok(self.store.set_password(session.person, &hash, keep, by, self.now()).await?)
    }

    /// Gives the person with this email another password; all their sessions end.
    pub async fn set_password(
        &self,
        email: &str,
        password: &str,
        by: &Origin,
    ) -> Result<(), PersonError> {
        let email =
            person::normal_email(email).map_err(|want| PersonError::Field("The email", want))?;
        let person = self.store.person_by_email(&email).await?;
        let person = person.ok_or(PersonError::State("nobody has this email"))?;
        let hash = self.hashed(password, by.ip).await?;
        Ok(self.store.set_password(person.id, &hash, None, by, self.now()).await?)
    }

    fn code_generators(&self, salt: &[u8]) -> Result<Vec<Totp>, StoreError> {
        let peppers = self.peppers()?.all();
        let made =
            peppers.map(|pepper| Builder::new().with_secret(code_secret(pepper, salt)).build());
        Ok(made.filter_map(Result::ok).collect())
    }

    /// Takes a one-time code, or a recovery code.
    pub(super) async fn take_code(&self, person: &Person, code: &str) -> Result<bool, PersonError> {
        if let Some(step) = self.code_step(person, code)? {
            return Ok(self.store.take_code(person.id, step).await?);
        }
        Ok(self.store.take_recovery_code(person.id, &recovery_hash(code)).await?)
    }

    /// The step of time that a one-time code belongs to, if it is right.
    fn code_step(&self, person: &Person, code: &str) -> Result<Option<i64>, StoreError> {
        let Some(salt) = &person.code_salt else { return Ok(None) };
        let digits: String = code.chars().filter(char::is_ascii_digit).collect();
        let seconds = u64::try_from(self.now() / 1000).unwrap_or(0);
        let generators = self.code_generators(salt)?;
        let step = generators.iter().find_map(|codes| codes.check(&digits, seconds));
        Ok(step.and_then(|step| i64::try_from(step).ok()))
    }

    /// Begins to set up one-time codes: the secret in base 32, for the device.
    pub async fn offer_codes(&self, session: &Session) -> Result<String, PersonError> {
        let salt: [u8; 16] = self.ids.bytes();
        self.store.offer_codes(session.person, &salt).await.map_err(|error| match error {
            StoreError::RowCount { .. } => PersonError::State("one-time codes are on already"),
            error => error.into(),
        })?;
        Ok(code_secret(self.peppers()?.newest(), &salt).to_base32())
    }

    /// Asks for one-time codes from now on, as the device shows the right one. The recovery codes, to be shown
    /// this once.
    pub async fn switch_codes_on(
        &self,
        session: &Session,
        code: &str,
        by: &Origin,
    ) -> Result<Vec<String>, PersonError> {
        let person = self.store.person(session.person).await?.ok_or(PersonError::Refused)?;
        let step = self.code_step(&person, code)?.ok_or(PersonError::Refused)?;
        let codes: Vec<String> = (0..RECOVERY_CODES).map(|_| self.recovery_code()).collect();
        let hashes: Vec<KeyHash> = codes.iter().map(|code| recovery_hash(code)).collect();
        self.store.switch_codes_on(person.id, step, &hashes, by, self.now()).await?;
        Ok(codes)
    }

    /// Asks for no one-time codes any more. The caller has seen the password.
    pub async fn switch_codes_off(
        &self,
        session: &Session,
        by: &Origin,
    ) -> Result<(), PersonError> {
        Ok(self.store.switch_codes_off(session.person, by, self.now()).await?)
    }

    /// `xxxxx-xxxxx` of letters and digits without look-alikes: 50 bits.
    fn recovery_code(&self) -> String {
        const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789z";
        let letters = self.ids.bytes::<10>().map(|b| char::from(ALPHABET[usize::from(b & 31)]));
        let (left, right) = letters.split_at(5);
        format!("{}-{}", String::from_iter(left), String::from_iter(right))
    }

    /// Gives a person of an account another role, or (`None`) no place there.
    pub async fn change_role(
        &self,
        account: AccountId,
        person: PersonId,
        role: Option<Role>,
        by: &Origin,
    ) -> Result<(), PersonError> {
        match self.store.change_role(account, person, role, by, self.now()).await? {
            true => Ok(()),
            false => Err(PersonError::State(
                "This is the account's last owner: make somebody else an owner first.",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_fits_its_own_hash_alone() {
        let ids = Ids::seeded(4);
        let hash = hash_password("correct horse", &ids).unwrap();
        assert!(fits("correct horse", &hash));
        assert!(!fits("correct horsf", &hash));
        assert!(!fits("", &NOBODY));
        assert!(!NOBODY.is_empty(), "it costs as much as any other");
        assert_ne!(hash, hash_password("correct horse", &ids).unwrap(), "salted");
    }

    #[test]
    fn recovery_codes_are_read_as_people_write_them() {
        assert_eq!(recovery_hash("abcde-fghjk"), recovery_hash(" ABCDE fghjk "));
        assert_ne!(recovery_hash("abcde-fghjk"), recovery_hash("abcde-fghjm"));
    }
}
