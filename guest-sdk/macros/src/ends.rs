//! The options of `#[dormouse::function]` that say how its runs may end, and what follows.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::ParseStream;
use syn::{Error, Ident, LitStr, Path, Result, Token, parenthesized};

use crate::function::{condition, duration, optional, text};

/// The options' names, for a mistake's message.
pub(crate) const KNOWN: &str = "on_failure, cancel_on, timeouts";

const CANCEL_ON_MAX: usize = 5;
const PATH_BYTES_MAX: usize = 512;

/// Events that cancel runs.
struct CancelOn {
    event: LitStr,
    path: Option<LitStr>,
    condition: Option<LitStr>,
    timeout_ms: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Options {
    on_failure: Option<Path>,
    cancel_on: Vec<CancelOn>,
    timeouts: Option<(Option<u64>, Option<u64>)>,
}

/// Whether an option may be given several times.
pub(crate) fn repeats(name: &Ident) -> bool {
    name == "cancel_on"
}

impl Options {
    /// Reads the option, if it is one of these.
    pub(crate) fn parse(&mut self, name: &str, input: ParseStream<'_>) -> Result<bool> {
        match name {
            "on_failure" => {
                input.parse::<Token![=]>()?;
                self.on_failure = Some(input.parse()?);
            }
            "cancel_on" => {
                let cancels = cancel_on(input)?;
                if self.cancel_on.len() == CANCEL_ON_MAX {
                    let message = format!("a function has cancel_on at most {CANCEL_ON_MAX} times");
                    return Err(Error::new(cancels.event.span(), message));
                }
                self.cancel_on.push(cancels);
            }
            "timeouts" => self.timeouts = Some(timeouts(input)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(crate) fn definition(&self) -> TokenStream {
        let on_failure = self.on_failure.as_ref();
        let on_failure = optional(on_failure.map(|path| quote!(<#path as ::dormouse::Function>::ID)));
        let cancel_on = self.cancel_on.iter().map(CancelOn::definition);
        let timeouts = optional(self.timeouts.map(|(start, finish)| {
            let start = optional(start.map(|millis| quote!(#millis)));
            let finish = optional(finish.map(|millis| quote!(#millis)));
            quote!(::dormouse::__private::Timeouts { start_ms: #start, finish_ms: #finish })
        }));
        quote!(::dormouse::__private::Ends {
            on_failure: #on_failure,
            cancel_on: ::std::vec![#(#cancel_on),*],
            timeouts: #timeouts,
        })
    }
}

impl CancelOn {
    fn definition(&self) -> TokenStream {
        let event = &self.event;
        let path = optional(self.path.as_ref().map(|path| quote!(#path)));
        let condition = optional(self.condition.as_ref().map(|condition| quote!(#condition)));
        let timeout = optional(self.timeout_ms.map(|millis| quote!(#millis)));
        quote!(::dormouse::__private::CancelOn {
            event: #event,
            path: #path,
            condition: #condition,
            timeout_ms: #timeout,
        })
    }
}

/// `cancel_on(event = "shop/order.cancelled", match = "data.order_id", if = "async.data.sure", timeout = "1h")`
fn cancel_on(input: ParseStream<'_>) -> Result<CancelOn> {
    let content;
    let parentheses = parenthesized!(content in input);
    let (mut event, mut path, mut expression, mut timeout_ms) = (None, None, None, None);
    while !content.is_empty() {
        // Two of the members are words of the language.
        let member = content.call(<Ident as syn::ext::IdentExt>::parse_any)?;
        match member.to_string().as_str() {
            "event" => event = Some(event_name(text(&content)?)?),
            "match" => path = Some(field(text(&content)?)?),
            "if" => expression = Some(condition(text(&content)?)?),
            "timeout" => timeout_ms = Some(duration(&text(&content)?)?),
            other => {
                let message =
                    format!("unknown member `{other}` of cancel_on; known are: event, match, if, timeout");
                return Err(Error::new(member.span(), message));
            }
        }
        if !content.is_empty() {
            content.parse::<Token![,]>()?;
        }
    }
    let Some(event) = event else {
        let message = "cancel_on needs an event: cancel_on(event = \"shop/order.cancelled\", match = \"data.order_id\")";
        return Err(Error::new(parentheses.span.join(), message));
    };
    Ok(CancelOn {
        event,
        path,
        condition: expression,
        timeout_ms,
    })
}

fn event_name(name: LitStr) -> Result<LitStr> {
    let value = name.value();
    if value.is_empty() || value.contains('*') {
        let message = "cancel_on names one event in full, such as \"shop/order.cancelled\"";
        return Err(Error::new(name.span(), message));
    }
    Ok(name)
}

fn field(path: LitStr) -> Result<LitStr> {
    if path.value().is_empty() || path.value().len() > PATH_BYTES_MAX {
        let message = "match is the path of a field, such as \"data.order_id\"";
        return Err(Error::new(path.span(), message));
    }
    Ok(path)
}

/// `timeouts(start = "10m", finish = "1d")`
fn timeouts(input: ParseStream<'_>) -> Result<(Option<u64>, Option<u64>)> {
    let content;
    let parentheses = parenthesized!(content in input);
    let (mut start, mut finish) = (None, None);
    while !content.is_empty() {
        let member: Ident = content.parse()?;
        match member.to_string().as_str() {
            "start" => start = Some(duration(&text(&content)?)?),
            "finish" => finish = Some(duration(&text(&content)?)?),
            other => {
                let message = format!("unknown member `{other}` of timeouts; known are: start, finish");
                return Err(Error::new(member.span(), message));
            }
        }
        if !content.is_empty() {
            content.parse::<Token![,]>()?;
        }
    }
    if start.is_none() && finish.is_none() {
        let message = "timeouts needs a start or a finish: timeouts(start = \"10m\", finish = \"1d\")";
        return Err(Error::new(parentheses.span.join(), message));
    }
    Ok((start, finish))
}
