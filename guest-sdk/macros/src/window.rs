//! The options of `#[dormouse::function]` that let several events start one run.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{Parse as _, ParseStream};
use syn::{Error, Ident, LitStr, Result, Token, ext::IdentExt as _, parenthesized};

use crate::flow::number;
use crate::function::{condition, duration, optional, text};

const SECOND_MS: u64 = 1_000;
const WEEK_MS: u64 = 7 * 86_400_000;
const MINUTE_MS: u64 = 60_000;
const BATCH_SIZE_MAX: u32 = 100;

/// `debounce(period = "10s", timeout = "1m", key = "event.data.user")`
pub(crate) struct Debounce {
    period_ms: u64,
    timeout_ms: Option<u64>,
    key: Option<LitStr>,
}

/// `batch_events(max_size = 50, timeout = "5s", key = "event.data.shop", if = "event.data.bulk")`
pub(crate) struct Batch {
    max_size: u32,
    timeout_ms: u64,
    key: Option<LitStr>,
    condition: Option<LitStr>,
}

impl Debounce {
    pub(crate) fn parse(input: ParseStream<'_>) -> Result<Debounce> {
        let content;
        let parentheses = parenthesized!(content in input);
        let (mut period_ms, mut timeout_ms, mut key) = (None, None, None);
        members(&content, |name, member| {
            match name.to_string().as_str() {
                "period" => period_ms = Some(span("period of debounce", member, WEEK_MS)?),
                "timeout" => timeout_ms = Some(span("timeout of debounce", member, WEEK_MS)?),
                "key" => key = Some(condition(text(member)?)?),
                other => return Err(unknown(name, other, "debounce", "period, timeout, key")),
            }
            Ok(())
        })?;
        let Some(period_ms) = period_ms else {
            let message = "debounce needs a period: debounce(period = \"10s\")";
            return Err(Error::new(parentheses.span.join(), message));
        };
        if timeout_ms.is_some_and(|timeout| timeout < period_ms) {
            let message = "the timeout of debounce is shorter than its period";
            return Err(Error::new(parentheses.span.join(), message));
        }
        Ok(Debounce {
            period_ms,
            timeout_ms,
            key,
        })
    }

    pub(crate) fn definition(&self) -> TokenStream {
        let period_ms = self.period_ms;
        let timeout_ms = optional(self.timeout_ms.map(|timeout| quote!(#timeout)));
        let key = optional(self.key.as_ref().map(|key| quote!(#key)));
        quote!(::dormouse::__private::Debounce { period_ms: #period_ms, timeout_ms: #timeout_ms, key: #key })
    }
}

impl Batch {
    pub(crate) fn parse(input: ParseStream<'_>) -> Result<Batch> {
        let content;
        let parentheses = parenthesized!(content in input);
        let (mut max_size, mut timeout_ms, mut key, mut only) = (None, None, None, None);
        members(&content, |name, member| {
            match name.to_string().as_str() {
                "max_size" => {
                    let size = number(member, BATCH_SIZE_MAX)?;
                    if size < 2 {
                        return Err(Error::new(name.span(), "a batch has at least 2 events"));
                    }
                    max_size = Some(size);
                }
                "timeout" => timeout_ms = Some(span("timeout of batch_events", member, MINUTE_MS)?),
                "key" => key = Some(condition(text(member)?)?),
                "if" => only = Some(condition(text(member)?)?),
                other => {
                    return Err(unknown(name, other, "batch_events", "max_size, timeout, key, if"));
                }
            }
            Ok(())
        })?;
        let (Some(max_size), Some(timeout_ms)) = (max_size, timeout_ms) else {
            let message =
                "batch_events needs a size and a timeout: batch_events(max_size = 50, timeout = \"5s\")";
            return Err(Error::new(parentheses.span.join(), message));
        };
        Ok(Batch {
            max_size,
            timeout_ms,
            key,
            condition: only,
        })
    }

    pub(crate) fn definition(&self) -> TokenStream {
        let Batch {
            max_size, timeout_ms, ..
        } = self;
        let key = optional(self.key.as_ref().map(|key| quote!(#key)));
        let condition = optional(self.condition.as_ref().map(|condition| quote!(#condition)));
        quote!(::dormouse::__private::Batch {
            max_size: #max_size,
            timeout_ms: #timeout_ms,
            key: #key,
            condition: #condition,
        })
    }
}

/// Reads members, each by its name.
fn members(
    content: ParseStream<'_>,
    mut read: impl FnMut(&Ident, ParseStream<'_>) -> Result<()>,
) -> Result<()> {
    while !content.is_empty() {
        // `if` is a keyword.
        let name = content.call(Ident::parse_any)?;
        read(&name, content)?;
        if !content.is_empty() {
            <Token![,]>::parse(content)?;
        }
    }
    Ok(())
}

fn span(what: &str, input: ParseStream<'_>, most: u64) -> Result<u64> {
    let given = text(input)?;
    let millis = duration(&given)?;
    if (SECOND_MS..=most).contains(&millis) {
        return Ok(millis);
    }
    let message = format!("a {what} is 1s to {}s", most / 1_000);
    Err(Error::new(given.span(), message))
}

fn unknown(name: &Ident, other: &str, of: &str, known: &str) -> Error {
    let message = format!("unknown member `{other}` of {of}; known are: {known}");
    Error::new(name.span(), message)
}
