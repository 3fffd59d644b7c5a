#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f", timeout = "5 minutes")]
async fn f() -> dormouse::Result<()> {
    Ok(())
}

fn main() {}
