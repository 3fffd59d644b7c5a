#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f", retries = 21)]
async fn f() -> dormouse::Result<()> {
    Ok(())
}

fn main() {}
