#![allow(unused)]
use dormouse::prelude::*;

#[dormouse::function(id = "f", parallelism = 3)]
async fn f() -> dormouse::Result<()> {
    Ok(())
}

fn main() {}
