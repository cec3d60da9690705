//! Where a webhook is sent to: a URL that was checked as far as it can be without asking a name server.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

use crate::limits::URL_CHARS_MAX;
use crate::network::NetworkPolicy;

/// A webhook's URL: the text as the partner wrote it, and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookUrl {
    text: String,
    url: Url,
}

/// Where a connection goes: an address that stands in the URL itself, or a name to be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlHost {
    Address(IpAddr),
    Name(String),
}

/// Why a text can't be a webhook's URL. The words are for the partner who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWebhookUrl {
    #[error("must not be longer than {URL_CHARS_MAX} characters")]
    TooLong,
    #[error("must be an absolute URL such as https://example.com/webhooks")]
    NotAUrl,
    #[error("must begin with https://")]
    NotHttps,
    #[error("must begin with https:// or http://")]
    NotHttp,
    #[error("must not contain a user name or a password")]
    Credentials,
    #[error("must not use port {0}")]
    Port(u16),
    #[error("must not point to a private, local or reserved address")]
    ForbiddenAddress,
}

impl WebhookUrl {
    /// Checks a partner's text.
    ///
    /// # Errors
    /// When it breaks one of the rules; a name is not resolved here.
    pub fn parse(text: &str, policy: &NetworkPolicy) -> Result<Self, InvalidWebhookUrl> {
        let parsed = Self::parse_stored(text)?;
        match parsed.url.scheme() {
            "https" => {}
            "http" if policy.allow_http => {}
            _ if policy.allow_http => return Err(InvalidWebhookUrl::NotHttp),
            _ => return Err(InvalidWebhookUrl::NotHttps),
        }
        if has_userinfo(text) {
            return Err(InvalidWebhookUrl::Credentials);
        }
        if !policy.ports.contains(parsed.port()) {
            return Err(InvalidWebhookUrl::Port(parsed.port()));
        }
        match parsed.host() {
            UrlHost::Address(address) if !policy.permits(address) => {
                Err(InvalidWebhookUrl::ForbiddenAddress)
            }
            _ => Ok(parsed),
        }
    }

    /// Reads a text that passed [`Self::parse`] before, under whatever policy there was then.
    ///
    /// # Errors
    /// When it is no absolute http or https URL at all.
    pub fn parse_stored(text: &str) -> Result<Self, InvalidWebhookUrl> {
        if text.chars().count() > URL_CHARS_MAX {
            return Err(InvalidWebhookUrl::TooLong);
        }
        // The URL standard drops these silently, and what is sent would not be what was written.
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(InvalidWebhookUrl::NotAUrl);
        }
        let url = Url::parse(text).map_err(|_| InvalidWebhookUrl::NotAUrl)?;
        if !is_spelled_plainly(text) {
            return Err(InvalidWebhookUrl::NotAUrl);
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(InvalidWebhookUrl::NotHttp);
        }
        Ok(Self {
            text: text.to_owned(),
            url,
        })
    }

    /// The text as the partner wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The host; numbers in any spelling (`0x7f.1`, `2130706433`) are addresses here.
    #[must_use]
    pub fn host(&self) -> UrlHost {
        match self.url.host() {
            Some(Host::Ipv4(v4)) => UrlHost::Address(v4.into()),
            Some(Host::Ipv6(v6)) => UrlHost::Address(v6.into()),
            Some(Host::Domain(name)) => UrlHost::Name(name.to_owned()),
            None => UrlHost::Name(String::new()),
        }
    }

    /// The port, written or by the scheme.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or(0)
    }
}

/// Browsers forgive a missing `//` and backslashes; other programs read another host out of such a text.
fn is_spelled_plainly(text: &str) -> bool {
    let Some((_, rest)) = text.split_once(':') else {
        return false;
    };
    let Some(rest) = rest.strip_prefix("//") else {
        return false;
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    !host.is_empty() && !rest.contains('\\')
}

/// Whether a user name or a password stands before the host, an empty one too.
fn has_userinfo(text: &str) -> bool {
    let authority = text.split_once("//").map_or("", |(_, rest)| rest);
    authority
        .split(['/', '?', '#'])
        .next()
        .is_some_and(|authority| authority.contains('@'))
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Config;

    fn parse(text: &str) -> Result<WebhookUrl, InvalidWebhookUrl> {
        WebhookUrl::parse(text, &NetworkPolicy::new(&Config::default()))
    }

    #[test]
    fn an_https_url_is_kept_as_it_was_written() {
        for text in [
            "https://your-app.com/webhooks/vellocity",
            "HTTPS://Example.COM:8443/a?b=c#d",
            "https://münchen.example/ä",
        ] {
            assert_eq!(parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn each_broken_rule_has_its_own_words() {
        use InvalidWebhookUrl::{
            Credentials, ForbiddenAddress, NotAUrl, NotHttp, NotHttps, Port, TooLong,
        };
        let long = format!("https://a.example/{}", "x".repeat(2048 - 17));
        let cases = [
            (long.as_str(), TooLong),
            ("", NotAUrl),
            ("example.com", NotAUrl),
            ("https://", NotAUrl),
            ("https://a b.example", NotAUrl),
            (" https://a.example", NotAUrl),
            ("https:a.example", NotAUrl),
            ("https:\\\\a.example", NotAUrl),
            ("https://a.example\\@10.0.0.1/", NotAUrl),
            ("https://@a.example/", Credentials),
            ("https://a.exa\nmple", NotAUrl),
            ("ftp://a.example", NotHttp),
            ("http://a.example", NotHttps),
            ("https://user@a.example", Credentials),
            ("https://:secret@a.example", Credentials),
            ("https://a.example:22", Port(22)),
            ("https://a.example:0", Port(0)),
        ];
        for (text, error) in cases {
            assert_eq!(parse(text), Err(error), "{text}");
        }
        for host in [
            "127.0.0.1",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "127.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "169.254.169.254",
            "[fd00:ec2::254]",
        ] {
            assert_eq!(
                parse(&format!("https://{host}/")),
                Err(ForbiddenAddress),
                "{host}"
            );
        }
    }

    #[test]
    fn plain_http_is_a_matter_of_configuration() {
        let policy = NetworkPolicy::new(&Config {
            allow_http: true,
            ..Config::default()
        });
        assert!(WebhookUrl::parse("http://a.example", &policy).is_ok());
        assert_eq!(
            WebhookUrl::parse("gopher://a.example", &policy),
            Err(InvalidWebhookUrl::NotHttp)
        );
    }
}
