//! `#[dormouse::function]`.

use crate::trigger::Trigger;
use crate::{ends, flow};
use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{
    Error, FnArg, GenericArgument, Ident, ItemFn, Lit, LitInt, LitStr, PathArguments, Result, ReturnType,
    Token, Type, parenthesized, parse2,
};

const TRIGGERS_MAX: usize = 10;
const RETRIES_MAX: u32 = 20;
const CONDITION_BYTES_MAX: usize = 4096;

pub(crate) fn expand(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let function: ItemFn = parse2(item)?;
    let options: Options = parse2(options)?;
    check(&function)?;
    let id = options.id.ok_or_else(|| {
        Error::new(
            Span::call_site(),
            "a function needs an id: #[dormouse::function(id = \"my-function\", on(event = \"…\"))]",
        )
    })?;
    let name = &function.sig.ident;
    let visibility = &function.vis;
    let docs = function
        .attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("doc"));
    let triggers = options.triggers.iter().map(Trigger::definition);
    let retries = optional(options.retries.map(|retries| quote!(#retries)));
    let backoff = optional(options.backoff.map(|backoff| match backoff {
        Backoff::Inngest => quote!(::dormouse::Backoff::inngest()),
        Backoff::Exponential {
            initial_ms,
            factor,
            max_ms,
        } => quote!(::dormouse::Backoff::from_millis(#initial_ms, #factor, #max_ms)),
    }));
    let timeout = optional(options.timeout_ms.map(|millis| quote!(#millis)));
    let flow = options.flow.definition();
    let ends = options.ends.definition();

    let mut arguments = Vec::new();
    let mut names = Vec::new();
    for (number, input) in function.sig.inputs.iter().enumerate() {
        if let FnArg::Typed(argument) = input {
            let (name, kind) = (format_ident!("argument_{number}"), &argument.ty);
            // With the argument's own span, an error about it points at it.
            arguments.push(quote_spanned!(kind.span()=> let #name = <#kind as ::dormouse::__private::Argument>::from_input(input)?;));
            names.push(name);
        }
    }
    let data = data(&function);
    let output = match &function.sig.output {
        ReturnType::Type(_, kind) => output(kind),
        ReturnType::Default => unreachable!("checked above"),
    };
    let outcome = match &function.sig.output {
        ReturnType::Type(_, kind) => {
            quote_spanned!(kind.span()=> <#kind as ::dormouse::__private::Outcome>::complete(outcome))
        }
        ReturnType::Default => unreachable!("checked above"),
    };

    Ok(quote! {
        #function

        #(#docs)*
        #[allow(non_camel_case_types)]
        #[derive(Debug, Clone, Copy)]
        #visibility struct #name {}

        impl ::dormouse::Function for #name {
            const ID: &'static str = #id;
            type Data = #data;
            type Output = #output;

            fn definition() -> ::dormouse::__private::Definition {
                ::dormouse::__private::Definition {
                    id: #id,
                    triggers: ::std::vec![#(#triggers),*],
                    retries: #retries,
                    backoff: #backoff,
                    timeout_ms: #timeout,
                    flow: #flow,
                    ends: #ends,
                }
            }

            fn start(
                input: &::dormouse::__private::Input,
            ) -> ::dormouse::Result<::dormouse::__private::BoxFuture<::dormouse::Result<::dormouse::__private::Completion>>> {
                let _ = input;
                #(#arguments)*
                ::core::result::Result::Ok(::std::boxed::Box::pin(async move {
                    let outcome = #name(#(#names),*).await;
                    #outcome
                }))
            }
        }
    })
}

/// The `T` of an argument `Event<T>` or `Events<T>`; any JSON when there is none.
fn data(function: &ItemFn) -> TokenStream {
    let of_event = function.sig.inputs.iter().find_map(|input| match input {
        FnArg::Typed(argument) => parameter(&argument.ty, &["Event", "Events"]),
        FnArg::Receiver(_) => None,
    });
    match of_event {
        Some(data) => quote!(#data),
        None => quote!(::dormouse::__private::JsonValue),
    }
}

/// The `T` of `Result<T>` or `Result<Continue<T, C>>`. It is read off where it can be, since a type that cannot be returned
/// would otherwise be complained of more than once.
fn output(returned: &Type) -> TokenStream {
    match parameter(returned, &["Result"]) {
        Some(value) => {
            let done = parameter(value, &["Continue"]).unwrap_or(value);
            quote!(#done)
        }
        None => quote_spanned!(returned.span()=> <#returned as ::dormouse::__private::Outcome>::Output),
    }
}

/// The first type parameter of a type of one of these names.
fn parameter<'a>(of: &'a Type, names: &[&str]) -> Option<&'a Type> {
    let Type::Path(path) = of else {
        return None;
    };
    let last = path.path.segments.last()?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return None;
    };
    match arguments.args.first()? {
        GenericArgument::Type(first) if names.iter().any(|name| last.ident == name) => Some(first),
        _ => None,
    }
}

pub(crate) fn optional(value: Option<TokenStream>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}

fn check(function: &ItemFn) -> Result<()> {
    let signature = &function.sig;
    if signature.asyncness.is_none() {
        return Err(Error::new(
            signature.fn_token.span,
            "a Dormouse function is async: write `async fn`",
        ));
    }
    if let Some(receiver) = signature.receiver() {
        return Err(Error::new(
            receiver.span(),
            "a Dormouse function is a free function: it takes no `self`",
        ));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(
            signature.generics.span(),
            "a Dormouse function can't be generic: the server calls it by its id",
        ));
    }
    if matches!(signature.output, ReturnType::Default) {
        let message = "a Dormouse function returns dormouse::Result<T>; `dormouse::Result<()>` when there is nothing to tell";
        return Err(Error::new(signature.ident.span(), message));
    }
    Ok(())
}

enum Backoff {
    Exponential {
        initial_ms: u64,
        factor: f64,
        max_ms: u64,
    },
    Inngest,
}

#[derive(Default)]
struct Options {
    id: Option<LitStr>,
    triggers: Vec<Trigger>,
    retries: Option<u32>,
    backoff: Option<Backoff>,
    timeout_ms: Option<u64>,
    flow: flow::Options,
    ends: ends::Options,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Options> {
        let mut options = Options::default();
        let mut seen: Vec<Ident> = Vec::new();
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            if key != "on" && key != "concurrency" && !ends::repeats(&key) && seen.contains(&key) {
                return Err(Error::new(key.span(), format!("`{key}` is given twice")));
            }
            match key.to_string().as_str() {
                "id" => options.id = Some(id(text(input)?)?),
                "on" => options.add_trigger(input, &key)?,
                "retries" => options.retries = Some(retries(input)?),
                "backoff" => options.backoff = Some(backoff(input)?),
                "timeout" => options.timeout_ms = Some(duration(&text(input)?)?),
                other if options.flow.parse(other, input)? => {}
                other if options.ends.parse(other, input)? => {}
                other => {
                    let message = format!(
                        "unknown option `{other}`; known are: id, on, retries, backoff, timeout, {}, {}",
                        flow::KNOWN,
                        ends::KNOWN
                    );
                    return Err(Error::new(key.span(), message));
                }
            }
            seen.push(key);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

impl Options {
    fn add_trigger(&mut self, input: ParseStream<'_>, on: &Ident) -> Result<()> {
        let content;
        parenthesized!(content in input);
        let trigger = Trigger::parse(&content)?;
        if let Some(twice) = self.triggers.iter().find_map(|other| trigger.same(other)) {
            return Err(twice);
        }
        self.triggers.push(trigger);
        if self.triggers.len() > TRIGGERS_MAX {
            return Err(Error::new(
                on.span(),
                format!("a function has at most {TRIGGERS_MAX} triggers"),
            ));
        }
        Ok(())
    }
}

/// The expression itself is read by the server, at upload.
pub(crate) fn condition(condition: LitStr) -> Result<LitStr> {
    let value = condition.value();
    if value.trim().is_empty() || value.len() > CONDITION_BYTES_MAX {
        let message =
            format!("a condition is a CEL expression of 1 to {CONDITION_BYTES_MAX} bytes over `event`");
        return Err(Error::new(condition.span(), message));
    }
    Ok(condition)
}

pub(crate) fn text(input: ParseStream<'_>) -> Result<LitStr> {
    input.parse::<Token![=]>()?;
    input.parse()
}

fn id(id: LitStr) -> Result<LitStr> {
    let value = id.value();
    let first = value.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    let rest = value
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if first && rest && value.len() <= 63 {
        return Ok(id);
    }
    let message = "an id is 1 to 63 of a-z, 0-9 and -, and begins with a letter, such as \"create-workflow\"";
    Err(Error::new(id.span(), message))
}

fn retries(input: ParseStream<'_>) -> Result<u32> {
    input.parse::<Token![=]>()?;
    let number: LitInt = input.parse()?;
    number
        .base10_parse()
        .ok()
        .filter(|retries| *retries <= RETRIES_MAX)
        .ok_or_else(|| Error::new(number.span(), format!("retries is 0 to {RETRIES_MAX}")))
}

fn backoff(input: ParseStream<'_>) -> Result<Backoff> {
    if input.peek(Token![=]) {
        let name = text(input)?;
        return match name.value().as_str() {
            "inngest" => Ok(Backoff::Inngest),
            _ => Err(Error::new(
                name.span(),
                "the only table of waits is \"inngest\"; others are written backoff(initial = \"1s\", factor = 2, max = \"1h\")",
            )),
        };
    }
    let content;
    let parentheses = parenthesized!(content in input);
    let (mut initial_ms, mut factor, mut max_ms) = (1_000, 2.0, None);
    while !content.is_empty() {
        let key: Ident = content.parse()?;
        match key.to_string().as_str() {
            "initial" => initial_ms = duration(&text(&content)?)?,
            "max" => max_ms = Some(duration(&text(&content)?)?),
            "factor" => {
                content.parse::<Token![=]>()?;
                let number: Lit = content.parse()?;
                let value = match &number {
                    Lit::Int(number) => number.base10_parse::<f64>().ok(),
                    Lit::Float(number) => number.base10_parse::<f64>().ok(),
                    _ => None,
                };
                factor = value
                    .filter(|factor| (1.0..=100.0).contains(factor))
                    .ok_or_else(|| Error::new(number.span(), "factor is a number from 1 to 100"))?;
            }
            other => {
                let message = format!("unknown member `{other}` of backoff; known are: initial, factor, max");
                return Err(Error::new(key.span(), message));
            }
        }
        if !content.is_empty() {
            content.parse::<Token![,]>()?;
        }
    }
    let max_ms = max_ms.unwrap_or(3_600_000.max(initial_ms));
    if max_ms < initial_ms {
        return Err(Error::new(parentheses.span.join(), "max is shorter than initial"));
    }
    Ok(Backoff::Exponential {
        initial_ms,
        factor,
        max_ms,
    })
}

/// `500ms`, `30s`, `5m`, `2h`, `1d` in milliseconds.
pub(crate) fn duration(text: &LitStr) -> Result<u64> {
    let value = text.value();
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let unit = match &value[digits..] {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let number: Option<u64> = value[..digits].parse().ok();
    let millis = unit
        .zip(number)
        .and_then(|(unit, number)| number.checked_mul(unit));
    millis
        .filter(|millis| (1..=366 * 86_400_000).contains(millis))
        .ok_or_else(|| {
            Error::new(
                text.span(),
                "a duration is a whole number with ms, s, m, h or d, such as \"30s\"; at most 366d",
            )
        })
}
