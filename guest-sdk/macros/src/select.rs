//! `select!`.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::parse::{Parse, ParseStream, Parser};
use syn::{Error, Expr, Pat, Result, Token};

struct Branch {
    pattern: Pat,
    future: Expr,
    handler: Expr,
}

impl Parse for Branch {
    fn parse(input: ParseStream<'_>) -> Result<Branch> {
        let pattern = Pat::parse_single(input)?;
        input.parse::<Token![=]>()?;
        let future = input.parse()?;
        input.parse::<Token![=>]>()?;
        let handler: Expr = input.parse()?;
        // As in a match: the comma may be left out after a block.
        if !input.is_empty() && (!matches!(handler, Expr::Block(_)) || input.peek(Token![,])) {
            input.parse::<Token![,]>()?;
        }
        Ok(Branch {
            pattern,
            future,
            handler,
        })
    }
}

pub(crate) fn expand(branches: TokenStream) -> Result<TokenStream> {
    let parse = |input: ParseStream<'_>| {
        let mut branches = Vec::new();
        while !input.is_empty() {
            branches.push(input.parse::<Branch>()?);
        }
        Ok(branches)
    };
    let branches = parse.parse2(branches)?;
    if branches.is_empty() {
        return Err(Error::new(
            Span::call_site(),
            "select! needs a branch: select! { output = future => expression }",
        ));
    }
    let kinds: Vec<_> = (0..branches.len())
        .map(|number| format_ident!("Branch{number}"))
        .collect();
    let names: Vec<_> = (0..branches.len())
        .map(|number| format_ident!("future_{number}"))
        .collect();
    let futures = branches.iter().map(|branch| &branch.future);
    let patterns = branches.iter().map(|branch| &branch.pattern);
    let handlers = branches.iter().map(|branch| &branch.handler);
    Ok(quote! {{
        enum __DormouseSelected<#(#kinds),*> {
            #(#kinds(#kinds)),*
        }
        // The futures live in this block alone: those that lost are dropped before the winner's expression runs.
        let selected = {
            #(let mut #names = ::std::boxed::Box::pin(#futures);)*
            ::core::future::poll_fn(move |context| {
                #(
                    if let ::core::task::Poll::Ready(output) = ::core::future::Future::poll(#names.as_mut(), context) {
                        return ::core::task::Poll::Ready(__DormouseSelected::#kinds(output));
                    }
                )*
                ::core::task::Poll::Pending
            })
            .await
        };
        match selected {
            #(__DormouseSelected::#kinds(#patterns) => #handlers,)*
        }
    }})
}
