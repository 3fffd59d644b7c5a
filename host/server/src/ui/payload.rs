//! JSON as people read it: indented, every digit as it came, and not more than a page can bear.

use dormouse_core::Json;
use maud::{Markup, html};

/// More than this is not shown: the API has the whole.
const SHOWN_BYTES_MAX: usize = 64 << 10;

/// A payload as a block.
pub(super) fn block(json: &Json) -> Markup {
    let text = json.as_str();
    if text.len() > SHOWN_BYTES_MAX {
        let mut end = SHOWN_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        return html! {
            pre.json { (&text[..end]) "…" }
            p.muted { "The first " (SHOWN_BYTES_MAX) " of " (text.len()) " bytes. The API has the whole." }
        };
    }
    html! { pre.json { (indented(text)) } }
}

/// Indents a JSON text without reading its values: a number of thirty digits keeps them all.
fn indented(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0_usize;
    let mut chars = text.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(char) = chars.next() {
        match char {
            '"' => {
                out.push('"');
                while let Some(char) = chars.next() {
                    out.push(char);
                    match char {
                        '"' => break,
                        '\\' => out.extend(chars.next()),
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(char);
                while chars.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(close) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    // However deep it nests, the indentation stays readable.
                    depth += 1;
                    line(&mut out, depth.min(32));
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth.min(32));
                out.push(char);
            }
            ',' => {
                out.push(',');
                line(&mut out, depth.min(32));
            }
            ':' => out.push_str(": "),
            char if char.is_ascii_whitespace() => {}
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indents_without_touching_values() {
        let text = r#"{"a":[1,{"b":"x,{y}\"\\"}],"n":123456789012345678901234567890, "e": { } ,"f":[]}"#;
        let expected = r#"{
  "a": [
    1,
    {
      "b": "x,{y}\"\\"
    }
  ],
  "n": 123456789012345678901234567890,
  "e": {},
  "f": []
}"#;
        assert_eq!(indented(text), expected);
        for scalar in ["null", "\"a b\"", "-1.50e3"] {
            assert_eq!(indented(scalar), scalar);
        }
    }

    #[test]
    fn deep_nesting_does_not_explode() {
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        assert!(indented(&deep).len() < 700_000);
    }

    #[test]
    fn markup_in_payloads_is_escaped_and_large_ones_are_cut() {
        let shown = block(&Json::trusted(r#""<script>""#)).into_string();
        assert!(shown.contains("&lt;script&gt;"), "{shown}");
        let large = Json::trusted(format!("\"{}\"", "ä".repeat(SHOWN_BYTES_MAX)));
        assert!(block(&large).into_string().len() < SHOWN_BYTES_MAX + 500);
    }
}
