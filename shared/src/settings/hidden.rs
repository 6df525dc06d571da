//! Settings that must not be shown, wherever one prints them.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// A value that must not be shown: `Debug` says only whether there is one.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The value itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "empty" } else { "hidden" })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { "hidden" })
    }
}

/// A database's or Redis's address, shown without user, password and options.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ServerUrl(String);

impl ServerUrl {
    /// The whole of it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The part before `://`; empty if there is none.
    pub fn scheme(&self) -> &str {
        self.0.split_once("://").map_or("", |(scheme, _)| scheme)
    }
}

impl From<String> for ServerUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return f.write_str("…");
        };
        let (plain, options) = match rest.split_once('?') {
            Some((plain, _)) => (plain, "?…"),
            None => (rest, ""),
        };
        match plain.rsplit_once('@') {
            _ if scheme == "sqlite" => write!(f, "{scheme}://{plain}{options}"),
            Some((_, host)) => write!(f, "{scheme}://…@{host}{options}"),
            // A question mark in a password, or an @ in an option.
            None if rest.contains('@') => write!(f, "{scheme}://…"),
            None => write!(f, "{scheme}://{plain}{options}"),
        }
    }
}

impl Serialize for ServerUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_what_is_secret() {
        for (url, shown) in [
            ("postgres://u:p@ss@host/db", "postgres://…@host/db"),
            ("postgres://host/db?password=p", "postgres://host/db?…"),
            ("postgres://u:p?@host/db", "postgres://…"),
            ("rediss://:p@host:6380/1", "rediss://…@host:6380/1"),
            ("sqlite://a/b@c.db", "sqlite://a/b@c.db"),
            ("u:p@host", "…"),
        ] {
            let url = ServerUrl::from(url.to_owned());
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.into(), shown.into()));
        }
    }
}
