//! The options of `#[dormouse::function]` that limit how its runs start.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::ParseStream;
use syn::{Error, Ident, LitInt, LitStr, Result, Token, parenthesized};

use crate::function::{condition, duration, optional, text};
use crate::window::{Batch, Debounce};

/// The options' names, for a mistake's message.
pub(crate) const KNOWN: &str =
    "idempotency, rate_limit, throttle, priority, concurrency, singleton, debounce, batch_events";

const RATE_MAX: u32 = 1_000_000;
const CONCURRENCY_MAX: u32 = 1_000;
const CONCURRENCY_LIMITS_MAX: usize = 2;
const DAY_MS: u64 = 86_400_000;

/// So many in so long.
struct Rate {
    limit: u32,
    period_ms: u64,
    burst: Option<u32>,
    key: Option<LitStr>,
}

/// So many at once.
struct Concurrency {
    limit: u32,
    key: Option<LitStr>,
    scope: &'static str,
}

/// One at a time.
struct Singleton {
    key: Option<LitStr>,
    mode: &'static str,
}

#[derive(Default)]
pub(crate) struct Options {
    idempotency: Option<LitStr>,
    rate_limit: Option<Rate>,
    throttle: Option<Rate>,
    priority: Option<LitStr>,
    debounce: Option<Debounce>,
    batch_events: Option<Batch>,
    concurrency: Vec<Concurrency>,
    singleton: Option<Singleton>,
}

impl Options {
    /// Reads the option, if it is one of these.
    pub(crate) fn parse(&mut self, name: &str, input: ParseStream<'_>) -> Result<bool> {
        match name {
            "idempotency" => self.idempotency = Some(condition(text(input)?)?),
            "rate_limit" => self.rate_limit = Some(rate(name, input, DAY_MS)?),
            "throttle" => self.throttle = Some(rate(name, input, 7 * DAY_MS)?),
            "priority" => self.priority = Some(condition(text(input)?)?),
            "singleton" => self.singleton = Some(singleton(input)?),
            "debounce" => self.debounce = Some(Debounce::parse(input)?),
            "batch_events" => self.batch_events = Some(Batch::parse(input)?),
            "concurrency" => {
                let span = input.span();
                self.concurrency.push(concurrency(input)?);
                if self.concurrency.len() > CONCURRENCY_LIMITS_MAX {
                    let message =
                        format!("a function has at most {CONCURRENCY_LIMITS_MAX} concurrency limits");
                    return Err(Error::new(span, message));
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(crate) fn definition(&self) -> TokenStream {
        let idempotency = optional(self.idempotency.as_ref().map(|key| quote!(#key)));
        let rate_limit = optional(self.rate_limit.as_ref().map(Rate::definition));
        let throttle = optional(self.throttle.as_ref().map(Rate::definition));
        let priority = optional(self.priority.as_ref().map(|priority| quote!(#priority)));
        let debounce = optional(self.debounce.as_ref().map(Debounce::definition));
        let batch_events = optional(self.batch_events.as_ref().map(Batch::definition));
        let singleton = optional(self.singleton.as_ref().map(Singleton::definition));
        let concurrency = self.concurrency.iter().map(Concurrency::definition);
        quote!(::dormouse::__private::Flow {
            idempotency: #idempotency,
            rate_limit: #rate_limit,
            throttle: #throttle,
            priority: #priority,
            debounce: #debounce,
            batch_events: #batch_events,
            singleton: #singleton,
            concurrency: &[#(#concurrency),*],
        })
    }
}

impl Rate {
    fn definition(&self) -> TokenStream {
        let Rate { limit, period_ms, .. } = self;
        let burst = optional(self.burst.map(|burst| quote!(#burst)));
        let key = optional(self.key.as_ref().map(|key| quote!(#key)));
        quote!(::dormouse::__private::Rate { limit: #limit, period_ms: #period_ms, burst: #burst, key: #key })
    }
}

impl Concurrency {
    fn definition(&self) -> TokenStream {
        let Concurrency { limit, scope, .. } = self;
        let key = optional(self.key.as_ref().map(|key| quote!(#key)));
        quote!(::dormouse::__private::Concurrency { limit: #limit, key: #key, scope: #scope })
    }
}

impl Singleton {
    fn definition(&self) -> TokenStream {
        let mode = self.mode;
        let key = optional(self.key.as_ref().map(|key| quote!(#key)));
        quote!(::dormouse::__private::Singleton { key: #key, mode: #mode })
    }
}

/// `singleton(key = "event.data.user", mode = "skip")`
fn singleton(input: ParseStream<'_>) -> Result<Singleton> {
    let content;
    let parentheses = parenthesized!(content in input);
    let (mut key, mut mode) = (None, None);
    while !content.is_empty() {
        let member: Ident = content.parse()?;
        match member.to_string().as_str() {
            "key" => key = Some(condition(text(&content)?)?),
            "mode" => {
                let given = text(&content)?;
                mode = Some(match given.value().as_str() {
                    "skip" => "skip",
                    "cancel" => "cancel",
                    other => {
                        let message = format!(
                            "unknown mode `{other}` of singleton; known are: skip (an event that comes while a run lives starts \
                             none), cancel (that run is cancelled, and the event starts one)"
                        );
                        return Err(Error::new(given.span(), message));
                    }
                });
            }
            other => {
                let message = format!("unknown member `{other}` of singleton; known are: key, mode");
                return Err(Error::new(member.span(), message));
            }
        }
        if !content.is_empty() {
            content.parse::<Token![,]>()?;
        }
    }
    let Some(mode) = mode else {
        let message =
            "singleton needs a mode: singleton(key = \"event.data.user\", mode = \"skip\"), or \"cancel\"";
        return Err(Error::new(parentheses.span.join(), message));
    };
    Ok(Singleton { key, mode })
}

/// `concurrency = 5` or `concurrency(limit = 5, key = "event.data.user", scope = "account")`
fn concurrency(input: ParseStream<'_>) -> Result<Concurrency> {
    if input.peek(Token![=]) {
        return Ok(Concurrency {
            limit: number(input, CONCURRENCY_MAX)?,
            key: None,
            scope: "fn",
        });
    }
    let content;
    let parentheses = parenthesized!(content in input);
    let (mut limit, mut key, mut scope) = (None, None, "fn");
    while !content.is_empty() {
        let member: Ident = content.parse()?;
        match member.to_string().as_str() {
            "limit" => limit = Some(number(&content, CONCURRENCY_MAX)?),
            "key" => key = Some(condition(text(&content)?)?),
            "scope" => {
                let given = text(&content)?;
                scope = match given.value().as_str() {
                    "fn" => "fn",
                    "account" => "account",
                    other => {
                        let message = format!(
                            "unknown scope `{other}` of concurrency; known are: fn (this function), account (all functions \
                             that have a limit with this scope and the same value of its key)"
                        );
                        return Err(Error::new(given.span(), message));
                    }
                };
            }
            other => {
                let message =
                    format!("unknown member `{other}` of concurrency; known are: limit, key, scope");
                return Err(Error::new(member.span(), message));
            }
        }
        if !content.is_empty() {
            content.parse::<Token![,]>()?;
        }
    }
    let span = parentheses.span.join();
    let Some(limit) = limit else {
        let message = "concurrency needs a limit: concurrency = 5, or concurrency(limit = 5, key = \"event.data.user\")";
        return Err(Error::new(span, message));
    };
    if scope == "account" && key.is_none() {
        let message =
            "the scope account needs a key, which names what the functions share, such as key = \"'openai'\"";
        return Err(Error::new(span, message));
    }
    Ok(Concurrency { limit, key, scope })
}

/// `rate_limit(limit = 10, period = "1m", burst = 2, key = "event.data.user")`
fn rate(name: &str, input: ParseStream<'_>, period_ms_max: u64) -> Result<Rate> {
    let content;
    let parentheses = parenthesized!(content in input);
    let (mut limit, mut period_ms, mut burst, mut key) = (None, None, None, None);
    while !content.is_empty() {
        let member: Ident = content.parse()?;
        match member.to_string().as_str() {
            "limit" => limit = Some(number(&content, RATE_MAX)?),
            "period" => {
                let period = text(&content)?;
                let millis = duration(&period)?;
                if !(1_000..=period_ms_max).contains(&millis) {
                    let message = format!("a period of {name} is 1s to {}h", period_ms_max / 3_600_000);
                    return Err(Error::new(period.span(), message));
                }
                period_ms = Some(millis);
            }
            "burst" => burst = Some(number(&content, RATE_MAX)?),
            "key" => key = Some(condition(text(&content)?)?),
            other => {
                let message =
                    format!("unknown member `{other}` of {name}; known are: limit, period, burst, key");
                return Err(Error::new(member.span(), message));
            }
        }
        if !content.is_empty() {
            content.parse::<Token![,]>()?;
        }
    }
    let (Some(limit), Some(period_ms)) = (limit, period_ms) else {
        let message = format!("{name} needs a limit and a period: {name}(limit = 10, period = \"1m\")");
        return Err(Error::new(parentheses.span.join(), message));
    };
    if burst.is_some_and(|burst| burst > limit) {
        let message = format!("the burst is more than the limit, {limit}");
        return Err(Error::new(parentheses.span.join(), message));
    }
    Ok(Rate {
        limit,
        period_ms,
        burst,
        key,
    })
}

pub(crate) fn number(input: ParseStream<'_>, most: u32) -> Result<u32> {
    input.parse::<Token![=]>()?;
    let number: LitInt = input.parse()?;
    let parsed = number.base10_parse().ok();
    parsed
        .filter(|value| (1..=most).contains(value))
        .ok_or_else(|| Error::new(number.span(), format!("a whole number from 1 to {most}")))
}
