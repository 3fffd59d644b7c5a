//! Style and script. They are part of the binary, so that the pages work without any network but the one to us.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use dormouse_core::Digest;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::Failed;
use crate::problem::Problem;

const STYLE: &str = include_str!("../../assets/dormouse.css");
const SCRIPT: &str = include_str!("../../assets/dormouse.js");
const ICON: &str = include_str!("../../assets/dormouse.svg");

/// Where the style is. The address changes with the content, so that it may be kept forever.
pub(super) static STYLE_URL: LazyLock<String> = LazyLock::new(|| address("dormouse.css", STYLE));
/// Where the script is.
pub(super) static SCRIPT_URL: LazyLock<String> = LazyLock::new(|| address("dormouse.js", SCRIPT));
/// Where the icon is.
pub(super) static ICON_URL: LazyLock<String> = LazyLock::new(|| address("dormouse.svg", ICON));

fn address(name: &str, content: &str) -> String {
    format!("/assets/{name}?{}", &Digest::of(content.as_bytes()).hex()[..12])
}

pub(super) async fn asset(Path(name): Path<String>) -> Response {
    let (media, content) = match name.as_str() {
        "dormouse.css" => ("text/css; charset=utf-8", STYLE),
        "dormouse.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "dormouse.svg" => ("image/svg+xml", ICON),
        _ => {
            return Failed(Problem::new(
                404,
                "no-route",
                format!("there is nothing at /assets/{name}"),
            ))
            .into_response();
        }
    };
    let kept = HeaderValue::from_static("public, max-age=31536000, immutable");
    (
        [
            (CONTENT_TYPE, HeaderValue::from_static(media)),
            (CACHE_CONTROL, kept),
        ],
        content,
    )
        .into_response()
}
