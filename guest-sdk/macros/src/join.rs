//! `join!` and `try_join!`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Expr, Result, Token};

pub(crate) fn expand(futures: TokenStream, fail_early: bool) -> Result<TokenStream> {
    let futures: Vec<Expr> = Punctuated::<Expr, Token![,]>::parse_terminated
        .parse2(futures)?
        .into_iter()
        .collect();
    let names: Vec<_> = (0..futures.len())
        .map(|number| format_ident!("future_{number}"))
        .collect();
    let outputs: Vec<_> = (0..futures.len())
        .map(|number| format_ident!("output_{number}"))
        .collect();
    let keep = if fail_early {
        quote! {
            match output {
                ::core::result::Result::Ok(value) => ::core::option::Option::Some(value),
                ::core::result::Result::Err(error) => {
                    return ::core::task::Poll::Ready(::core::result::Result::Err(error));
                }
            }
        }
    } else {
        quote!(::core::option::Option::Some(output))
    };
    let all = if fail_early {
        quote!(::core::result::Result::Ok((#(value(#outputs.take()),)*)))
    } else {
        quote!((#(value(#outputs.take()),)*))
    };
    Ok(quote! {{
        #(let mut #names = ::std::boxed::Box::pin(#futures);)*
        #(let mut #outputs = ::core::option::Option::None;)*
        ::core::future::poll_fn(move |context| {
            #[allow(dead_code)]
            fn value<T>(output: ::core::option::Option<T>) -> T {
                match output {
                    ::core::option::Option::Some(value) => value,
                    ::core::option::Option::None => ::core::unreachable!("every branch is done"),
                }
            }
            #[allow(unused_mut)]
            let mut running = false;
            #(
                if #outputs.is_none() {
                    match ::core::future::Future::poll(#names.as_mut(), context) {
                        ::core::task::Poll::Ready(output) => #outputs = #keep,
                        ::core::task::Poll::Pending => running = true,
                    }
                }
            )*
            if running {
                return ::core::task::Poll::Pending;
            }
            ::core::task::Poll::Ready(#all)
        })
        .await
    }})
}
