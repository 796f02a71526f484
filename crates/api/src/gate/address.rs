//! Where a request comes from, and whether it may.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

use crate::error::{Code, Refusal};

/// The client's address: the connection's own, unless that is a trusted proxy's. Then it is the last
/// one in `X-Forwarded-For` that is not; what stands before it, the client may have made up. `None` if
/// a trusted proxy does not say.
pub fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    // An IPv4 client of an IPv6 socket.
    let peer = peer.to_canonical();
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    if !is_trusted(&peer) {
        return Some(peer);
    }
    let mut nearest = None;
    for value in headers.get_all("x-forwarded-for").iter().rev() {
        for hop in value.to_str().ok()?.rsplit(',') {
            let address = parse(hop.trim())?;
            nearest = Some(address);
            if !is_trusted(&address) {
                return nearest;
            }
        }
    }
    // All of them are proxies of ours: the farthest is who asks.
    nearest
}

/// Some proxies write the port too.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

/// An empty list lets everyone in; another lets nobody in whose address is not known.
pub fn check(list: &[IpNet], address: Option<IpAddr>) -> Result<(), Refusal> {
    if list.is_empty() || address.is_some_and(|address| list.iter().any(|net| net.contains(&address))) {
        return Ok(());
    }
    let text = address.map_or("unknown".to_owned(), |address| address.to_string());
    Err(Refusal::new(Code::IpAddressNotOnAccessList, [&text]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(peer: &str, forwarded: &[&'static str]) -> Option<String> {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", http::HeaderValue::from_static(value));
        }
        client(peer.parse().unwrap(), &headers, &trusted).map(|address| address.to_string())
    }

    #[test]
    fn only_a_trusted_proxy_says_where_a_request_comes_from() {
        let is = |text: &str| Some(text.to_owned());
        assert_eq!(from("192.0.2.1", &["10.0.0.1", "203.0.113.9"]), is("192.0.2.1"), "no proxy of ours");
        assert_eq!(from("10.1.2.3", &["203.0.113.9"]), is("203.0.113.9"));
        assert_eq!(from("::ffff:10.1.2.3", &["203.0.113.9"]), is("203.0.113.9"), "an IPv4 proxy of an IPv6 socket");
        assert_eq!(from("10.1.2.3", &["1.1.1.1, 203.0.113.9, 10.0.0.7"]), is("203.0.113.9"), "not what it made up");
        assert_eq!(from("10.1.2.3", &["1.1.1.1", "203.0.113.9,10.0.0.7"]), is("203.0.113.9"), "in two headers");
        assert_eq!(from("::1", &["[2001:db8::7]:443"]), is("2001:db8::7"));
        assert_eq!(from("::1", &["203.0.113.9:4000"]), is("203.0.113.9"));
        assert_eq!(from("10.1.2.3", &["10.0.0.9, 10.0.0.8"]), is("10.0.0.9"), "a client within");
        assert_eq!(from("10.1.2.3", &[]), None);
        assert_eq!(from("10.1.2.3", &["203.0.113.9, unknown"]), None);
        assert_eq!(from("10.1.2.3", &["203.0.113.9, "]), None);
    }
}
