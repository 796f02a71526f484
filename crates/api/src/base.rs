//! The beginning of every link: the public URL, or else the scheme and the name that the client used.

use std::str::FromStr;

use http::uri::Authority;
use http::{HeaderMap, Uri, header};

use crate::error::{Code, Refusal};

/// Where clients reach the server, say `https://backup.example.net`; without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a public URL: write http:// or https://, a host, and if need be a port and a path, as in https://backup.example.net"
)]
pub struct NotAPublicUrl;

impl PublicUrl {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without a slash at its end; empty if it has none.
    pub fn path(&self) -> &str {
        let (_, rest) = self.0.split_once("://").unwrap_or_default();
        rest.find('/').map_or("", |at| &rest[at..])
    }
}

impl FromStr for PublicUrl {
    type Err = NotAPublicUrl;

    fn from_str(text: &str) -> Result<PublicUrl, NotAPublicUrl> {
        let uri: Uri = text.parse().map_err(|_| NotAPublicUrl)?;
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let host = uri.authority().is_some_and(|authority| is_host(authority.as_str()));
        if !scheme || !host || uri.query().is_some() || text.contains('#') {
            return Err(NotAPublicUrl);
        }
        Ok(PublicUrl(text.trim_end_matches('/').to_owned()))
    }
}

/// The beginning of the links of a reply. What comes from the client goes into the reply only if it
/// is plainly a host.
pub fn of_request(public: Option<&PublicUrl>, tls: bool, uri: &Uri, headers: &HeaderMap) -> Result<String, Refusal> {
    if let Some(public) = public {
        return Ok(public.0.clone());
    }
    let host = host(uri, headers).filter(|host| is_host(host)).ok_or_else(|| Refusal::new(Code::InvalidHost, []))?;
    Ok([if tls { "https://" } else { "http://" }, host].concat())
}

/// What the client calls this server, if it says so once.
pub fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    // HTTP/2 has it in `:authority`, which hyper puts into the URI.
    match (uri.authority().map(Authority::as_str), hosts.next(), hosts.next()) {
        (Some(authority), _, None) => Some(authority),
        (None, Some(host), None) => host.to_str().ok(),
        _ => None,
    }
}

/// A name or an address, and perhaps a port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => (address, port),
            _ => return false,
        },
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
                return false;
            }
            (name, port)
        }
    };
    let port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    !host.is_empty() && host.len() <= 253 && port
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_host(hosts: &[&'static str]) -> Result<String, Code> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, http::HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        of_request(None, false, &Uri::from_static("/x"), &headers).map_err(|refusal| refusal.code())
    }

    #[test]
    fn a_plain_host_is_taken_and_anything_else_refused() {
        for host in ["localhost", "localhost:8080", "10.0.0.1:80", "[::1]:8080", "[fe80::1]", "a-b.c_d.example"] {
            assert_eq!(of_host(&[host]), Ok(format!("http://{host}")));
        }
        let junk =
            ["", ":80", "a:", "a:0", "a:65536", "a:+1", "a/b", "a@b", "a b", "a?b", "<a>", "[::1", "[x]", "a:1:2", "é"];
        for host in junk {
            assert_eq!(of_host(&[host]), Err(Code::InvalidHost), "{host}");
        }
        assert_eq!(of_host(&[]), Err(Code::InvalidHost));
        assert_eq!(of_host(&["a", "b"]), Err(Code::InvalidHost));
    }

    #[test]
    fn a_public_url_goes_before_what_the_client_says() {
        let public: PublicUrl = "https://backup.example.net/".parse().unwrap();
        let base = of_request(Some(&public), false, &Uri::from_static("/x"), &HeaderMap::new());
        assert_eq!(base.unwrap(), "https://backup.example.net");
        assert_eq!(public.path(), "");
        assert_eq!("https://a:1/b/c/".parse::<PublicUrl>().unwrap().path(), "/b/c");
        for text in ["", "backup", "ftp://a", "http://", "https://a?b", "https://u:p@a", "https://a#b"] {
            assert_eq!(text.parse::<PublicUrl>(), Err(NotAPublicUrl), "{text}");
        }
    }
}
