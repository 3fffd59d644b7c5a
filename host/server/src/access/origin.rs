//! Keeps other web sites out. What protects a server that is open on loopback, or somebody who has signed in, from a page
//! that its user happens to look at is that browsers say where a request comes from.
//!
//! Programs that are not browsers say nothing of the kind and are let through. `/e` is not guarded: the contract has it
//! open to every origin.

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, Method, Uri};

use crate::problem::Problem;

/// Refuses a request that would change something and comes from another site.
///
/// # Errors
/// `cross-site`.
pub(super) fn check(parts: &Parts) -> Result<(), Problem> {
    match parts.method {
        Method::GET | Method::HEAD | Method::OPTIONS => Ok(()),
        _ => same_site(&parts.headers, &parts.uri),
    }
}

fn same_site(headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    // Sent by browsers to https and loopback addresses only, and no page can forge it: where it stands, it decides. That
    // also lets the pages work behind a proxy that serves them over https under a name of its own.
    if let Some(site) = headers.get("sec-fetch-site") {
        return match site.as_bytes() {
            b"same-origin" | b"none" => Ok(()),
            _ => Err(refused("another web site")),
        };
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or_default();
    let from = origin.split_once("://").map_or("", |(_, authority)| authority);
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host
        .or_else(|| uri.authority().map(http::uri::Authority::as_str))
        .unwrap_or_default();
    // A name that an attacker points at this machine makes both the same: names are not to be trusted, only addresses.
    if from.is_empty() || !from.eq_ignore_ascii_case(host) || !is_address(host) {
        return Err(refused(origin));
    }
    Ok(())
}

/// Whether a host is an address or means this machine.
fn is_address(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = host.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || bare.parse::<std::net::IpAddr>().is_ok()
}

fn refused(from: &str) -> Problem {
    Problem::new(
        403,
        "cross-site",
        format!("a request from {from} may not change anything here"),
    )
    .help("open the pages under the server's own address, such as http://127.0.0.1:8288")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(pairs: &[(&'static str, &str)]) -> bool {
        let headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    value.parse().expect("a header value"),
                )
            })
            .collect();
        same_site(&headers, &Uri::from_static("/")).is_ok()
    }

    #[test]
    fn programs_and_our_own_pages_are_let_through() {
        assert!(allowed(&[("host", "127.0.0.1:8288")]));
        assert!(
            allowed(&[("host", "example.com")]),
            "a program behind a proxy says no origin"
        );
        assert!(allowed(&[
            ("host", "127.0.0.1:8288"),
            ("origin", "http://127.0.0.1:8288")
        ]));
        assert!(allowed(&[
            ("host", "localhost:8288"),
            ("origin", "http://localhost:8288")
        ]));
        assert!(allowed(&[
            ("host", "[::1]:8288"),
            ("origin", "http://[::1]:8288"),
            ("sec-fetch-site", "same-origin")
        ]));
    }

    #[test]
    fn other_sites_are_kept_out() {
        assert!(!allowed(&[
            ("host", "127.0.0.1:8288"),
            ("sec-fetch-site", "cross-site")
        ]));
        assert!(!allowed(&[
            ("host", "127.0.0.1:8288"),
            ("sec-fetch-site", "same-site")
        ]));
        assert!(!allowed(&[
            ("host", "127.0.0.1:8288"),
            ("origin", "http://evil.example")
        ]));
        assert!(
            !allowed(&[("host", "127.0.0.1:8288"), ("origin", "http://127.0.0.1:9999")]),
            "another port"
        );
        assert!(!allowed(&[("host", "127.0.0.1:8288"), ("origin", "null")]));
        assert!(
            !allowed(&[("host", "evil.example"), ("origin", "http://evil.example")]),
            "a name that was rebound"
        );
    }

    #[test]
    fn a_proxy_that_serves_https_works_under_its_own_name() {
        let headers = [
            ("host", "127.0.0.1:8288"),
            ("origin", "https://dormouse.example.com"),
            ("sec-fetch-site", "same-origin"),
        ];
        assert!(allowed(&headers));
    }
}
