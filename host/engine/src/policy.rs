//! Which hosts a guest's bodies may reach: grants as an operator writes them, and addresses as the network has them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

/// A text that is not a grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is not a host to grant: {reason}. Write `api.example.com`, `localhost:8080`, `*.example.com` or `https://api.example.com`"
)]
pub struct InvalidPattern {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// The hosts a module was granted. Cheap to clone.
///
/// A grant is `host`, `host:port` or `*.domain` (any name below it, not the domain itself), with `http://` or
/// `https://` before it if only that is meant. Without a port the scheme's own is meant.
///
/// Addresses that are not public (loopback, private, link-local and with it the metadata services of clouds) are
/// refused, whatever name leads to them, unless a grant names that very host or address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpPolicy {
    grants: Arc<[Grant]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    /// `None`: both.
    https: Option<bool>,
    name: Name,
    /// `None`: the scheme's own.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    /// This one: a name in lower case, or an address.
    Exact(String),
    /// Any below: `.example.com`.
    Below(String),
}

/// How far a grant reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// To public addresses.
    Public,
    /// To any: the grant names this host itself.
    Any,
}

impl HttpPolicy {
    /// Grants nothing.
    pub fn none() -> HttpPolicy {
        HttpPolicy::default()
    }

    /// Reads a list of grants.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub fn parse<S: AsRef<str>>(patterns: &[S]) -> Result<HttpPolicy, InvalidPattern> {
        let grants = patterns
            .iter()
            .map(|text| text.as_ref().parse())
            .collect::<Result<Vec<Grant>, _>>()?;
        Ok(HttpPolicy {
            grants: grants.into(),
        })
    }

    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// Whether a host may be reached, and how far the grant goes. `host` without brackets around an address.
    pub(crate) fn reach(&self, https: bool, host: &str, port: u16) -> Option<Reach> {
        let host = normal(host);
        let fits = |grant: &&Grant| {
            grant.https.is_none_or(|only| only == https) && grant.port.unwrap_or(own_port(https)) == port
        };
        let reaches =
            self.grants
                .iter()
                .filter(fits)
                .filter_map(|grant| match &grant.name {
                    Name::Exact(name) => (*name == host).then_some(Reach::Any),
                    Name::Below(domain) => (host.len() > domain.len() && host.ends_with(domain.as_str()))
                        .then_some(Reach::Public),
                });
        reaches.max_by_key(|reach| *reach == Reach::Any)
    }
}

impl Reach {
    /// Whether an address that a name resolved to may be connected to.
    pub(crate) fn allows(self, address: IpAddr) -> bool {
        self == Reach::Any || is_public(address)
    }
}

/// The port a scheme means by itself.
pub(crate) const fn own_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

/// A host's name as it is compared: lower case, without the dot at the end; an address in its one form.
fn normal(host: &str) -> String {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    match IpAddr::from_str(&host) {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => host,
    }
}

impl FromStr for Grant {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Grant, InvalidPattern> {
        let invalid = |reason| InvalidPattern {
            text: text.to_owned(),
            reason,
        };
        let (https, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Some(false), rest),
            Some(("https", rest)) => (Some(true), rest),
            Some(_) => return Err(invalid("the scheme is not http or https")),
            None => (None, text),
        };
        // Brackets belong to an address of version 6, whose colons are not a port's.
        let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
            let (host, after) = bracketed
                .split_once(']')
                .ok_or_else(|| invalid("a bracket is missing"))?;
            if host.parse::<Ipv6Addr>().is_err() {
                return Err(invalid("what is in brackets is no address"));
            }
            let port = match after {
                "" => None,
                after => Some(
                    after
                        .strip_prefix(':')
                        .ok_or_else(|| invalid("it goes on after the bracket"))?,
                ),
            };
            (host, port)
        } else if rest.parse::<Ipv6Addr>().is_ok() {
            (rest, None)
        } else {
            match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            }
        };
        let port = match port.map(u16::from_str) {
            None => None,
            Some(Ok(port)) if port > 0 => Some(port),
            Some(_) => return Err(invalid("the port is not a number from 1 to 65535")),
        };
        let is_label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        let is_name = |name: &str| !name.is_empty() && name.split('.').all(is_label);
        let name = if let Some(domain) = host.strip_prefix("*.") {
            // `*.com` would grant half the world.
            if !is_name(domain) || !domain.contains('.') {
                return Err(invalid("after `*.` comes a domain of at least two parts"));
            }
            Name::Below(format!(".{}", normal(domain)))
        } else if host.parse::<Ipv6Addr>().is_ok() || is_name(host.trim_end_matches('.')) {
            Name::Exact(normal(host))
        } else {
            return Err(invalid("the host is not a name or an address"));
        };
        Ok(Grant { https, name, port })
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reach::Public => "public addresses",
            Reach::Any => "any address",
        })
    }
}

/// Whether an address is one of the internet at large.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_unspecified()
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || (a == 100 && (64..128).contains(&b)) // shared by carriers, and Alibaba's metadata
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b)) // benchmarks
        || a >= 240
        || address == Ipv4Addr::new(168, 63, 129, 16); // Azure's platform
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // An address of version 4 in one of the disguises that routers take off.
    let embedded = match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some((high, low)),
        [0x2002, high, low, ..] => Some((high, low)),
        [0, 0, 0, 0, 0, 0, high, low] => Some((high, low)),
        _ => None,
    };
    if let Some((high, low)) = embedded {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    // Global unicast is 2000::/3; within it 2001::/23 is special and 2001:db8::/32 documentation.
    segments[0] & 0xe000 == 0x2000
        && !(segments[0] == 0x2001 && segments[1] < 0x200)
        && !(segments[0] == 0x2001 && segments[1] == 0xdb8)
        && !(segments[0] == 0x3fff && segments[1] < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(grants: &[&str]) -> HttpPolicy {
        HttpPolicy::parse(grants).expect("valid grants")
    }

    #[test]
    fn grants_reach_what_they_say() {
        let policy = policy(&[
            "api.example.com",
            "*.Example.org",
            "127.0.0.1:9999",
            "https://[::1]:8443",
            "http://x.y",
        ]);
        for (https, host, port, reach) in [
            (true, "api.example.com", 443, Some(Reach::Any)),
            (false, "API.example.com.", 80, Some(Reach::Any)),
            (true, "api.example.com", 8443, None),
            (true, "evil-api.example.com", 443, None),
            (true, "a.b.example.org", 443, Some(Reach::Public)),
            (true, "example.org", 443, None),
            (true, "evilexample.org", 443, None),
            (false, "127.0.0.1", 9999, Some(Reach::Any)),
            (false, "127.0.0.1", 80, None),
            (false, "localhost", 9999, None),
            (true, "::1", 8443, Some(Reach::Any)),
            (false, "::1", 8443, None),
            (false, "x.y", 80, Some(Reach::Any)),
            (true, "x.y", 443, None),
        ] {
            assert_eq!(policy.reach(https, host, port), reach, "{host}:{port}");
        }
        assert_eq!(HttpPolicy::none().reach(true, "api.example.com", 443), None);
    }

    #[test]
    fn refuses_what_is_no_grant() {
        for bad in [
            "", "*", "*.com", "ftp://a", "a b", "a:0", "a:99999", "a:x", "[::1", "[x]", "a/b", "*.*.com",
            "u@a",
        ] {
            assert!(HttpPolicy::parse(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_public_addresses_are_public() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.100.100.200",
            "224.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::7f00:1",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(!is_public(private.parse().expect("an address")), "{private}");
        }
        for public in [
            "1.1.1.1",
            "93.184.216.34",
            "2606:4700:4700::1111",
            "64:ff9b::101:101",
        ] {
            assert!(is_public(public.parse().expect("an address")), "{public}");
        }
    }
}
