//! What must not compile, and what the compiler says about it.

#[test]
fn mistakes_are_compile_errors_that_say_what_to_do() {
    trybuild::TestCases::new().compile_fail("tests/compile/*.rs");
}
