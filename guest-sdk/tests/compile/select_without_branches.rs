#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f")]
async fn f() -> dormouse::Result<()> {
    select! {};
    Ok(())
}

fn main() {}
