#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f")]
async fn f(name: String) -> dormouse::Result<()> {
    Ok(())
}

fn main() {}
