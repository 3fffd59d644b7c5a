//! Makes components whose manifest is whatever one likes.

#[doc(hidden)]
pub use dormouse;

/// A component that answers `describe` with the given text, and completes every run with `null`.
#[macro_export]
macro_rules! module {
    ($manifest:expr) => {
        struct Component;

        impl $crate::dormouse::__private::Guest for Component {
            fn describe() -> String {
                $manifest
            }

            fn run(
                _: String,
                _: String,
            ) -> Result<$crate::dormouse::__private::WitCompletion, $crate::dormouse::__private::WitFailure> {
                Ok($crate::dormouse::__private::WitCompletion::Done("null".to_owned()))
            }
        }

        $crate::dormouse::__private::export!(Component with_types_in $crate::dormouse::__private::bindings);
    };
}
