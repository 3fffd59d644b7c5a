#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f", retries = 1, retries = 2)]
async fn f() -> dormouse::Result<()> {
    Ok(())
}

fn main() {}
