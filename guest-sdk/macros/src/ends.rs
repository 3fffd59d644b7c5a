//! The options of `#[dormouse::function]` that say how its runs may end, and what follows.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::ParseStream;
use syn::{Path, Result, Token};

use crate::function::optional;

/// The options' names, for a mistake's message.
pub(crate) const KNOWN: &str = "on_failure";

#[derive(Default)]
pub(crate) struct Options {
    on_failure: Option<Path>,
}

impl Options {
    /// Reads the option, if it is one of these.
    pub(crate) fn parse(&mut self, name: &str, input: ParseStream<'_>) -> Result<bool> {
        match name {
            "on_failure" => {
                input.parse::<Token![=]>()?;
                self.on_failure = Some(input.parse()?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(crate) fn definition(&self) -> TokenStream {
        let on_failure = self.on_failure.as_ref();
        let on_failure = optional(on_failure.map(|path| quote!(<#path as ::dormouse::Function>::ID)));
        quote!(::dormouse::__private::Ends { on_failure: #on_failure })
    }
}
