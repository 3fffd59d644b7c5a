#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f")]
async fn f() -> dormouse::Result<()> {
    Ok(())
}

#[dormouse::function(id = "f")]
async fn g() -> dormouse::Result<()> {
    Ok(())
}

dormouse::module!(f, g);

fn main() {}
