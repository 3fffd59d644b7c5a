//! The triggers of `#[dormouse::function]`: `on(event = "…")` and `on(cron = "…")`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt as _;
use syn::parse::ParseStream;
use syn::{Error, Ident, LitStr, Result, Token};

use crate::function::{condition, duration, optional, text};

const EVENT_NAME_BYTES_MAX: usize = 512;
const CRON_BYTES_MAX: usize = 256;
const JITTER_MS: std::ops::RangeInclusive<u64> = 1_000..=300_000;

/// What starts a function.
pub(crate) enum Trigger {
    Event {
        event: LitStr,
        condition: Option<LitStr>,
    },
    Cron {
        cron: LitStr,
        jitter_ms: Option<u64>,
        overlap: Option<LitStr>,
        catch_up: Option<LitStr>,
    },
}

impl Trigger {
    /// Reads what stands between the parentheses.
    pub(crate) fn parse(content: ParseStream<'_>) -> Result<Trigger> {
        let key: Ident = content.parse()?;
        match key.to_string().as_str() {
            "event" => event(content),
            "cron" => cron(content),
            _ => Err(Error::new(
                key.span(),
                format!("unknown trigger `{key}`; known are: event, cron"),
            )),
        }
    }

    pub(crate) fn definition(&self) -> TokenStream {
        let text = |text: &Option<LitStr>| optional(text.as_ref().map(|text| quote!(#text)));
        match self {
            Trigger::Event { event, condition } => {
                let condition = text(condition);
                quote!(::dormouse::function::Trigger::Event { event: #event, condition: #condition })
            }
            Trigger::Cron {
                cron,
                jitter_ms,
                overlap,
                catch_up,
            } => {
                let jitter_ms = optional(jitter_ms.map(|millis| quote!(#millis)));
                let (overlap, catch_up) = (text(overlap), text(catch_up));
                quote!(::dormouse::function::Trigger::Cron {
                    cron: #cron,
                    jitter_ms: #jitter_ms,
                    overlap: #overlap,
                    catch_up: #catch_up,
                })
            }
        }
    }

    /// The mistake that this trigger is there already.
    pub(crate) fn same(&self, other: &Trigger) -> Option<Error> {
        let value = |text: &Option<LitStr>| text.as_ref().map(LitStr::value);
        match (self, other) {
            (
                Trigger::Event { event, condition },
                Trigger::Event {
                    event: name,
                    condition: other,
                },
            ) if event.value() == name.value() && value(condition) == value(other) => {
                Some(Error::new(event.span(), "this event starts the function already"))
            }
            (Trigger::Cron { cron, .. }, Trigger::Cron { cron: other, .. })
                if cron.value() == other.value() =>
            {
                Some(Error::new(cron.span(), "this cron starts the function already"))
            }
            _ => None,
        }
    }
}

fn event(content: ParseStream<'_>) -> Result<Trigger> {
    let event = text(content)?;
    let mut condition = None;
    if content.peek(Token![,]) && content.peek2(Token![if]) {
        content.parse::<Token![,]>()?;
        content.parse::<Token![if]>()?;
        condition = Some(self::condition(text(content)?)?);
    }
    if !content.is_empty() {
        return Err(content.error(
            "a trigger has one event and at most one `if`; write another on(event = \"…\") for another",
        ));
    }
    let name = event.value();
    if name.is_empty() || name.len() > EVENT_NAME_BYTES_MAX {
        let message = format!("an event's name has 1 to {EVENT_NAME_BYTES_MAX} bytes");
        return Err(Error::new(event.span(), message));
    }
    Ok(Trigger::Event { event, condition })
}

/// `on(cron = "TZ=Europe/Paris 0 9 * * *", jitter = "30s", overlap = "skip", catch_up = "last")`
fn cron(content: ParseStream<'_>) -> Result<Trigger> {
    let cron = expression(text(content)?)?;
    let (mut jitter_ms, mut overlap, mut catch_up) = (None, None, None);
    while !content.is_empty() {
        content.parse::<Token![,]>()?;
        if content.is_empty() {
            break;
        }
        let key = content.call(Ident::parse_any)?;
        let given = match key.to_string().as_str() {
            "jitter" => jitter_ms.replace(jitter(text(content)?)?).is_some(),
            "overlap" => overlap
                .replace(word("overlap", text(content)?, &["skip", "queue", "allow"])?)
                .is_some(),
            "catch_up" => catch_up
                .replace(word("catch_up", text(content)?, &["none", "last", "all"])?)
                .is_some(),
            other => {
                let message =
                    format!("unknown member `{other}` of a cron; known are: jitter, overlap, catch_up");
                return Err(Error::new(key.span(), message));
            }
        };
        if given {
            return Err(Error::new(key.span(), format!("`{key}` is given twice")));
        }
    }
    let is = |text: &Option<LitStr>, word: &str| text.as_ref().is_some_and(|text| text.value() == word);
    if let Some(all) = catch_up.as_ref().filter(|_| is(&catch_up, "all"))
        && (overlap.is_none() || is(&overlap, "skip"))
    {
        return Err(Error::new(
            all.span(),
            "catch_up \"all\" starts missed ticks one upon the other, of which overlap \"skip\" leaves all out but the first: \
             add overlap = \"queue\" or \"allow\"",
        ));
    }
    Ok(Trigger::Cron {
        cron,
        jitter_ms,
        overlap,
        catch_up,
    })
}

/// The fields themselves, and the time zone, are read by the server, at upload.
fn expression(cron: LitStr) -> Result<LitStr> {
    let value = cron.value();
    let fields = match value.strip_prefix("TZ=").or(value.strip_prefix("CRON_TZ=")) {
        Some(rest) => rest.split_once(' ').map_or("", |(_, fields)| fields),
        None => value.as_str(),
    };
    let count = fields.split_whitespace().count();
    let nickname = count == 1 && fields.trim_start().starts_with('@');
    if value.len() <= CRON_BYTES_MAX && (count == 5 || nickname) {
        return Ok(cron);
    }
    let message = "a cron has five fields (minute, hour, day of the month, month, day of the week), and before them a time zone \
                   where it is not UTC: \"TZ=Europe/Paris 0 9 * * 1-5\"";
    Err(Error::new(cron.span(), message))
}

fn jitter(jitter: LitStr) -> Result<u64> {
    let millis = duration(&jitter)?;
    if !JITTER_MS.contains(&millis) {
        return Err(Error::new(jitter.span(), "a jitter is 1s to 5m"));
    }
    Ok(millis)
}

fn word(member: &str, word: LitStr, known: &[&str]) -> Result<LitStr> {
    if known.contains(&word.value().as_str()) {
        return Ok(word);
    }
    let message = format!(
        "unknown {member} \"{}\"; known are: {}",
        word.value(),
        known.join(", ")
    );
    Err(Error::new(word.span(), message))
}
