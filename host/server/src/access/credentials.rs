//! The key of a request: in `Authorization: Bearer`, or in the cookie of somebody who has signed in.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};

/// The cookie that holds the key of somebody who looks at pages.
pub(crate) const COOKIE_NAME: &str = "dormouse_key";

/// The key that a request shows. A header that has one decides, whatever it is.
pub(crate) fn shown(headers: &HeaderMap) -> Option<&str> {
    header(headers).or_else(|| cookie(headers))
}

/// The key that a request shows in a header. What is of another scheme is for somebody else, a proxy perhaps.
pub(crate) fn header(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    match value.split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => Some(key.trim()),
        _ => None,
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(COOKIE).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE_NAME && !value.is_empty()).then_some(value))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn of(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_key_is_found_where_it_stands() {
        for (value, key) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Bearer ", Some("")),
            ("abc", None),
            ("Basic abc", None),
            ("Bearer", None),
        ] {
            assert_eq!(shown(&of(&[(AUTHORIZATION, value)])), key, "{value}");
        }
        assert_eq!(shown(&of(&[])), None);
        let cookies = of(&[(COOKIE, "a=b; dormouse_key=abc;c=d")]);
        assert_eq!((shown(&cookies), header(&cookies)), (Some("abc"), None));
        assert_eq!(shown(&of(&[(COOKIE, "xdormouse_key=abc; dormouse_key=")])), None);
        let both = of(&[(COOKIE, "dormouse_key=abc"), (AUTHORIZATION, "Bearer x")]);
        assert_eq!(shown(&both), Some("x"), "a header decides");
        let proxied = of(&[(COOKIE, "dormouse_key=abc"), (AUTHORIZATION, "Basic x")]);
        assert_eq!(shown(&proxied), Some("abc"));
    }
}
