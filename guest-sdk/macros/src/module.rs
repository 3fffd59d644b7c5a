//! `dormouse::module!`.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Path, Result, Token};

pub(crate) fn expand(functions: TokenStream) -> Result<TokenStream> {
    let paths = Punctuated::<Path, Token![,]>::parse_terminated.parse2(functions)?;
    if paths.is_empty() {
        return Err(Error::new(
            Span::call_site(),
            "a module has at least one function: dormouse::module!(my_function)",
        ));
    }
    let entries = paths
        .iter()
        .map(|path| quote_spanned!(path.span()=> ::dormouse::__private::Entry::of::<#path>()));
    let ids = paths
        .iter()
        .map(|path| quote_spanned!(path.span()=> <#path as ::dormouse::Function>::ID));
    Ok(quote! {
        #[doc(hidden)]
        #[allow(dead_code)]
        const DORMOUSE_FUNCTIONS: &[::dormouse::__private::Entry] = &[#(#entries),*];

        const _: () = ::dormouse::__private::assert_unique(&[#(#ids),*]);

        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Component;

            impl ::dormouse::__private::Guest for Component {
                fn describe() -> ::std::string::String {
                    ::dormouse::__private::describe(DORMOUSE_FUNCTIONS)
                }

                fn run(
                    function: ::std::string::String,
                    input: ::std::string::String,
                ) -> ::core::result::Result<::dormouse::__private::WitCompletion, ::dormouse::__private::WitFailure> {
                    ::dormouse::__private::guest_run(DORMOUSE_FUNCTIONS, &function, &input)
                }
            }

            ::dormouse::__private::export!(Component with_types_in ::dormouse::__private::bindings);
        };
    })
}
