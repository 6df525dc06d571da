//! People: who logs in, and what they may do.
//!
//! | what | is |
//! | --- | --- |
//! | [`Person`] | who logs in: an email, and what proves that it is theirs |
//! | [`Role`] | what a person may do in an account |
//! | [`Session`] | a person in front of a browser, looking at one account |

use std::fmt;
use std::str::FromStr;

use super::account::Suspended;
use super::clock::Millis;
use super::id::{AccountId, PersonId, SessionId};

/// Characters of a new password, at least: NIST SP 800-63B-4, 3.1.1.2, asks for 15 where nothing else is needed to
/// log in and for 8 with a second factor; the throttle makes up for the difference.
pub const SHORTEST_PASSWORD: usize = 10;
/// Bytes of a password, at most: hashing takes as long for any of them.
pub const LONGEST_PASSWORD: usize = 1_024;
/// Bytes of an email (RFC 5321, 4.5.3.1.3).
pub const LONGEST_EMAIL: usize = 254;

/// What a person may do in an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Looks at everything.
    Viewer,
    /// Also submits, pauses, cancels and erases tasks.
    Member,
    /// Also keys, and the people of the account.
    Owner,
}

impl Role {
    /// All, the least first.
    pub const ALL: [Self; 3] = [Role::Viewer, Role::Member, Role::Owner];

    /// As it is stored and posted.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Member => "member",
            Role::Owner => "owner",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no role.
#[derive(Debug, thiserror::Error)]
#[error("must be owner, member or viewer")]
pub struct BadRole;

impl FromStr for Role {
    type Err = BadRole;

    fn from_str(text: &str) -> Result<Self, BadRole> {
        Role::ALL.into_iter().find(|role| role.as_str() == text).ok_or(BadRole)
    }
}

/// Who logs in.
#[derive(Clone)]
pub struct Person {
    /// Its id.
    pub id: PersonId,
    /// In lower case.
    pub email: String,
    /// Argon2id; none = cannot log in by password.
    pub password_hash: Option<String>,
    /// May see the operators' pages.
    pub operator: bool,
    /// What the secret of one-time codes follows from.
    pub code_salt: Option<Vec<u8>>,
    /// Logging in takes a one-time code.
    pub code_on: bool,
    /// The step of the last code that was taken.
    pub code_step: i64,
}

impl fmt::Debug for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Person").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A person in front of a browser.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Who.
    pub person: PersonId,
    /// Their email.
    pub email: String,
    /// May see the operators' pages.
    pub operator: bool,
    /// Logging in takes a one-time code.
    pub code_on: bool,
    /// The account that is looked at.
    pub account: AccountId,
    /// That account's email: its name.
    pub account_email: String,
    /// What the person may do there.
    pub role: Role,
    /// When the password was given last.
    pub proven_at: Millis,
    /// When it began.
    pub created_at: Millis,
    /// When it was of use last, to the minute.
    pub seen_at: Millis,
    /// Where it began.
    pub ip: Option<String>,
    /// The browser, as it named itself.
    pub agent: Option<String>,
    /// Why the account is suspended, if it is.
    pub suspended: Option<Suspended>,
}

/// Writes an email as people are found by it, or says what is wrong with it.
pub fn normal_email(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    let formed = text.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && !domain.is_empty() && !domain.contains('@')
    });
    if !formed
        || text.len() > LONGEST_EMAIL
        || text.chars().any(|c| c.is_whitespace() || c.is_control())
    {
        return Err("is no email address");
    }
    Ok(text.to_lowercase())
}

/// May this be a new password?
pub fn check_password(password: &str) -> Result<(), &'static str> {
    if password.chars().count() < SHORTEST_PASSWORD {
        return Err("must have at least 10 characters");
    }
    if password.len() > LONGEST_PASSWORD {
        return Err("must have at most 1,024 bytes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emails_are_found_in_any_case() {
        assert_eq!(normal_email(" Ada@Example.COM ").as_deref(), Ok("ada@example.com"));
        for wrong in ["", "ada", "@x", "a@", "a b@x", "a@b@c", "a@x\u{0}"] {
            assert!(normal_email(wrong).is_err(), "{wrong:?}");
        }
        assert!(normal_email(&format!("{}@x.example", "a".repeat(250))).is_err());
    }

    #[test]
    fn roles_are_ordered_and_read_as_they_are_written() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse::<Role>().unwrap(), role);
        }
        assert!(Role::Viewer < Role::Member && Role::Member < Role::Owner);
        assert!("admin".parse::<Role>().is_err());
    }

    #[test]
    fn passwords_have_bounds() {
        assert!(check_password("123456789").is_err());
        assert!(check_password("1234567890").is_ok());
        assert!(check_password(&"x".repeat(1_025)).is_err());
    }
}
