#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f")]
fn f() -> dormouse::Result<()> {
    Ok(())
}

fn main() {}
