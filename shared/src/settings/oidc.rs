//! The settings of logging in by OpenID Connect.

use super::{Settings, SettingsError};

/// Characters of what the button says.
const LONGEST_NAME: usize = 60;

/// May this address be asked? Over TLS, or on this machine.
pub fn is_safe_address(url: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && !"\"'<>\\#@".contains(c);
    if !url.chars().all(plain) {
        return false;
    }
    let host = |rest: &str| rest.split(['/', '?']).next().unwrap_or_default().to_owned();
    if let Some(rest) = url.strip_prefix("https://") {
        return !host(rest).is_empty();
    }
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let host = host(rest);
    // `[::1]:8080`, `127.0.0.1:8080`, `localhost`.
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Settings {
    pub(super) fn check_oidc(&self) -> Result<(), SettingsError> {
        let range = |ok: bool, name, want, got: &str| match ok {
            true => Ok(()),
            false => Err(SettingsError::Range { name, want, got: format!("{got:?}") }),
        };
        let name = &self.oidc_name;
        range(
            !name.trim().is_empty()
                && name.chars().count() <= LONGEST_NAME
                && !name.chars().any(char::is_control),
            "oidc_name",
            "1 to 60 characters",
            name,
        )?;
        range(
            !self.oidc_sign_up || self.oidc_domains().next().is_some(),
            "oidc_domains",
            "at least one domain, or *, where oidc_sign_up is on",
            &self.oidc_domains,
        )?;
        let Some(issuer) = &self.oidc_issuer else { return Ok(()) };
        range(
            is_safe_address(issuer) && !issuer.contains('?'),
            "oidc_issuer",
            "an address such as https://login.example.com (http:// on this machine alone)",
            issuer,
        )?;
        // Else somebody takes another's address first, and waits for them with a password of their own.
        range(
            !self.sign_up || self.smtp_url.is_some(),
            "sign_up",
            "off, or with smtp_url, where oidc_issuer is set: the addresses must be confirmed",
            "on",
        )?;
        range(
            !self.public_url.is_empty(),
            "public_url",
            "the address that people reach the dashboard at, where oidc_issuer is set",
            &self.public_url,
        )?;
        let id = &self.oidc_client_id;
        range(!id.trim().is_empty(), "oidc_client_id", "what the issuer calls Listmill", id)
    }

    fn oidc_domains(&self) -> impl Iterator<Item = &str> {
        self.oidc_domains.split(',').map(str::trim).filter(|domain| !domain.is_empty())
    }

    /// Does an unknown person with this email get an account by the issuer's word?
    pub fn oidc_takes(&self, email: &str) -> bool {
        let domain = email.rsplit_once('@').map_or("", |(_, domain)| domain);
        self.oidc_sign_up
            && self.oidc_domains().any(|one| one == "*" || one.eq_ignore_ascii_case(domain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_asked_without_tls() {
        for safe in [
            "https://login.example.com",
            "https://login.example.com:8443/realms/main",
            "http://127.0.0.1:9000/x",
            "http://localhost:9000",
            "http://[::1]:9000/a?b=c",
        ] {
            assert!(is_safe_address(safe), "{safe}");
        }
        for other in [
            "",
            "https://",
            "https:///x",
            "ftp://127.0.0.1",
            "http://login.example.com",
            "http://127.0.0.1.example.com",
            "http://127.0.0.1@example.com",
            "http://localhost.example.com",
            "https://a.example/#x",
            "https://a.example/\n",
        ] {
            assert!(!is_safe_address(other), "{other:?}");
        }
    }

    #[test]
    fn nobody_takes_anothers_address_before_they_come() {
        let pairs = [
            ("SIGN_UP", "on"),
            ("OIDC_ISSUER", "https://login.example.com"),
            ("OIDC_CLIENT_ID", "listmill"),
            ("PUBLIC_URL", "https://listmill.example.com"),
        ];
        let load = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(k, v)| (format!("LISTMILL_{k}"), (*v).to_owned()));
            Settings::load(None, pairs)
        };
        assert!(load(&pairs[1..]).is_ok());
        assert!(load(&pairs).unwrap_err().to_string().contains("sign_up"));
    }

    #[test]
    fn strangers_are_taken_by_their_domain_alone() {
        let load = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(k, v)| (format!("LISTMILL_{k}"), (*v).to_owned()));
            Settings::load(None, pairs)
        };
        assert!(load(&[("OIDC_SIGN_UP", "on")]).is_err(), "whom, is to be said");
        let domains = ("OIDC_DOMAINS", "example.com, Example.NET");
        let on = load(&[("OIDC_SIGN_UP", "on"), domains]).unwrap();
        assert!(on.oidc_takes("a@example.com") && on.oidc_takes("a@example.net"));
        for other in ["a@sub.example.com", "a@example.org", "a@notexample.com", "example.com"] {
            assert!(!on.oidc_takes(other), "{other}");
        }
        let off = load(&[domains]).unwrap();
        assert!(!off.oidc_takes("a@example.com"));
        let any = load(&[("OIDC_SIGN_UP", "on"), ("OIDC_DOMAINS", "*")]).unwrap();
        assert!(any.oidc_takes("a@example.org"));
    }
}
